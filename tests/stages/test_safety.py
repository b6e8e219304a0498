"""What comes from others (corpora, manifests, models, file names) neither runs a program nor leaves its folder."""

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest

from masr import cli
from masr.corpora import recording_of
from masr.decode.language_models import LanguageModels, estimate_models
from masr.files import DamagedFile
from masr.stages import features, lm, prepare
from masr.stages.prepare import manifests, read_cuts
from masr.stages.vocab import load_tokenizer, vocab_folder
from masr.text.tokenizer import Tokenizer


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["masr", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def change_manifest(config, change) -> Path:
    """Applies ``change`` to every cut of the training split, as a manifest made by others would have it."""
    path = manifests(config) / "train.jsonl.gz"
    rows = read_rows(path)
    for row in rows:
        change(row)
    write_rows(path, rows)
    return path


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.mark.parametrize("kind", ["command", "url", "shar"])
def test_only_files_are_read_from_a_manifest(small, kind):
    """lhotse runs a ``command`` and fetches a ``url``."""
    config = small.config()
    prepare.run(config)

    def change(row):
        row["recording"]["sources"][0] |= {"type": kind, "source": "touch marker; cat corpus/tuxpaint_es.opus"}

    path = change_manifest(config, change)
    with pytest.raises(ValueError, match=f"its audio is a {kind}, but only files are read"):
        read_cuts(path.parent, "train")
    with pytest.raises(ValueError, match=r"only files are read|prepare"):
        features.run(config)
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda row: row["supervisions"][0].update(language="../../x"), r"language '\.\./\.\./x': expected a code"),
        (lambda row: row["supervisions"][0].update(language=None), "language None"),
        (lambda row: row["supervisions"][0].update(language="a\x1bb"), "language"),
        (lambda row: row["recording"]["sources"][0].update(source="a;touch marker;.sph"), "takes? .* for a command"),
        (lambda row: row.update(start="0; touch marker;"), "expected seconds"),
        (lambda row: row.pop("recording"), "no recording"),
        (lambda row: row.update(features={"storage_type": "lilcom_url"}), "damaged"),
    ],
)
def test_a_manifest_that_is_not_masrs_is_refused(small, change, problem):
    config = small.config()
    prepare.run(config)
    path = change_manifest(config, change)
    with pytest.raises(ValueError, match=problem):
        read_cuts(path.parent, "train")
    assert not Path("marker").exists()


def test_features_that_masr_did_not_store_are_refused(small):
    config = small.config()
    prepare.run(config)
    features.run(config)
    stored = features.feature_folder(config) / "train" / features.CUTS
    rows = read_rows(stored)
    for kind in ("lilcom_url", "kaldiio", "numpy_files"):
        rows[0]["features"]["storage_type"] = kind
        write_rows(stored, rows)
        with pytest.raises(ValueError, match=f"its features are stored as {kind}"):
            features.load_cuts(config, "train")


def test_a_name_that_lhotse_would_give_to_a_shell_is_not_opened(small):
    """It reads .sph files by a line for a shell, in which the name stands as it is."""
    for name in ("a;touch marker;.sph", "$(touch marker).SPH", "a b.sph", "`touch marker`.sph"):
        (small.corpus / name).write_bytes(b"NIST_1A\n   1024\n" + bytes(2000))
        assert recording_of(small.corpus / name).num_samples == 0
    small.publish(small.bad_row(audio="a;touch marker;.sph"))
    prepare.run(small.config())
    assert small.rejected().keys() == {"bad"}
    assert not Path("marker").exists() and not (small.corpus / "marker").exists()


@pytest.mark.parametrize("code", ["../../x", "", "a/b", "x" * 300, "cs\x1b[31m", "a b", "č"])
def test_a_language_code_of_a_corpus_that_is_no_code_is_rejected(small, code):
    small.publish(small.bad_row(language=code))
    prepare.run(small.config())
    assert "expected a code of letters and digits" in small.rejected()["bad"]
    assert "\x1b" not in (small.folder / "data/manifests/rejected.tsv").read_text()


def test_control_characters_in_an_id_or_a_text_reach_no_terminal(small, capsys):
    small.publish(small.bad_row(id="bad\x1b[2J\tid", text="", audio="none\x1b[31m.opus"))
    prepare.run(small.config())
    shown = capsys.readouterr().out + (small.folder / "data/manifests/rejected.tsv").read_text()
    assert "\x1b" not in shown and r"bad\x1b[2J\x09id" in shown


def test_language_models_stay_in_their_folder(ready):
    config = ready.config("decode.methods=[nbest-lm-rescoring]")
    lm.run(config)
    tokenizer, folder = load_tokenizer(config), lm.lm_folder(config, "ngrams")
    with pytest.raises(ValueError, match=r"\.\./\.\./x"):
        estimate_models({"../../x": ["a"]}, tokenizer, config.language_model).save(folder)
    description = json.loads((folder / "lm.json").read_text())
    for key in ("models", "languages"):
        (folder / "lm.json").write_text(json.dumps(description | {key: ["../../x"]}))
        with pytest.raises(DamagedFile, match=r"lm\.json is damaged \(language '\.\./\.\./x'"):
            LanguageModels.load(folder, tokenizer)


def test_the_tokenizer_of_a_model_reads_no_file_elsewhere(ready):
    folder = vocab_folder(ready.config())
    description = json.loads((folder / "languages.json").read_text())
    (folder / "tokens.model").rename(folder / "tokens-es.model")
    shutil.copy(folder / "tokens-es.model", folder.parent / "x.model")
    (folder / "languages.json").write_text(json.dumps(description | {"languages": ["es/../../x"]}))
    with pytest.raises(ValueError, match=r"language 'es/\.\./\.\./x': expected a code"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("name", [".", "..", "a/..", "./"])
def test_the_vocabulary_of_a_whisper_lies_in_the_folder_of_vocabularies(small, name):
    options = [
        "features.kind=whisper",
        "vocab.kind=whisper",
        "model.ctc.weight=0.0",
        "model.attention_decoder.weight=1.0",
    ]
    config = small.config(f"model.pretrained={name}", *options)
    assert vocab_folder(config).resolve().parent == Path("data/vocab").resolve()


def test_a_name_that_leads_elsewhere_throws_nothing_away(ready, monkeypatch):
    victim = ready.folder / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    (ready.folder / "exp/a").mkdir(parents=True)
    message = call(monkeypatch, "train", "small.yaml", "name=a/../../victim", "--force")
    assert str(message).startswith("masr: command line: name: should be a name")
    assert (victim / "thesis.txt").read_text() == "years of work"


DAMAGE = {
    "empty": b"", "garbage": b"\xff\xfe\x00 garbage" * 9, "half": None, "list": b"[1]", "object": b'{"a": 1}\n',
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "verb"),
    [
        ("data/manifests/complete.json", "features"), ("data/manifests/train.jsonl.gz", "features"),
        ("data/manifests/train.jsonl.gz", "vocab"), ("data/fbank/train/complete.json", "train"),
        ("data/fbank/train/cuts.jsonl.gz", "train"), ("data/fbank/train/statistics.json", "train"),
        ("data/vocab/char/languages.json", "train"), ("data/vocab/char/tokens.model", "train"),
        ("data/vocab/char/complete.json", "train"), ("exp/small/data.json", "train"),
        ("exp/small/config.yaml", "train"), ("exp/small/log.jsonl", "train"), ("exp/small/config.yaml", "decode"),
        ("exp/small/averaged.safetensors", "decode"),
        ("exp/small/vocab/languages.json", "decode"), ("exp/small/environment.json", "score"),
        ("exp/small/training.json", "score"), ("exp/small/decode/ctc-greedy/test.jsonl", "score"),
        ("exp/small/decode/ctc-greedy/complete.json", "score"),
    ],
)  # fmt: skip
def test_no_damaged_file_ends_in_a_traceback(file, verb, finished, monkeypatch):
    """It is made again, or one line names it (or that the data is other than it was, where a seal tells it)."""
    for name, content in DAMAGE.items():
        for folder in ("data", "exp"):
            shutil.rmtree(folder)
            shutil.copytree(finished / folder, folder)
        whole = Path(file).read_bytes()
        Path(file).write_bytes(whole[: len(whole) // 2] if content is None else content)
        if verb in ("train", "score"):  # else a complete stage would look at nothing
            Path(f"exp/small/{'' if verb == 'train' else 'score/'}complete.json").unlink()
        code = call(monkeypatch, verb, "small.yaml")
        assert code == 0 or (str(code).startswith("masr: ") and str(code).count("\n") <= 1), (name, code)


@pytest.fixture
def finished(ready, monkeypatch, tmp_path_factory) -> Path:
    """A copy of ``data`` and ``exp`` after all stages."""
    for verb in ("train", "decode", "score"):
        assert call(monkeypatch, verb, "small.yaml", "decode.methods=[ctc-greedy]") == 0
    (ready.folder / "small.yaml").write_text(
        (ready.folder / "small.yaml").read_text().replace("ctc-greedy, joint-beam", "ctc-greedy")
    )
    copy = tmp_path_factory.mktemp("finished")
    for folder in ("data", "exp"):
        shutil.copytree(ready.folder / folder, copy / folder)
    return copy
