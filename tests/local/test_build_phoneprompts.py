"""The phoneprompts pack is consistent in itself, and local/build_phoneprompts.py reads its sources rightly."""

import gzip
import importlib.util
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = REPOSITORY / "egs/phoneprompts/corpus"
SECONDS = 0.5
TEXTS = {
    "en": "; a remark: not a prompt\n\nhello: Hello.  Please wait.\ndigits/7: seven\n",
    "ru": "hello: Здравствуйте.\ndigits/7: семь\nown: Только здесь: да.\nbroken\n",
}


def load_script() -> ModuleType:
    """Programs in local/ are not part of the package: load this one from its path."""
    spec = importlib.util.spec_from_file_location("build_phoneprompts", REPOSITORY / "local/build_phoneprompts.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build = load_script()


def tone(seconds: float = SECONDS) -> np.ndarray:
    """(S,) of a tone of 440 Hz."""
    return np.sin(np.arange(round(seconds * 16000)) / 16000 * 2 * np.pi * 440) * 0.5


def write_g722(path: Path, samples: np.ndarray) -> None:
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 2**15).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture
def originals(tmp_path: Path):
    """A miniature of the unpacked packages: texts of two languages."""
    for language, text in TEXTS.items():
        folder = tmp_path / f"usr/share/doc/asterisk-core-sounds-{language}"
        folder.mkdir(parents=True)
        (folder / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress(text.encode()))
    return build.Originals(tmp_path)


def entry_of(identifier: str, **fields: object) -> dict:
    language = identifier.split("/")[1]
    place = {"audio": f"{language}.opus", "start": 0.0, "duration": 1.0, "split": "train"}
    return {"id": identifier, "language": language, "speaker": "s", "text": "Hello."} | place | fields


def test_prompts_are_parsed():
    assert build.parse_prompts(TEXTS["en"]) == {"hello": "Hello. Please wait.", "digits/7": "seven"}
    assert build.parse_prompts(TEXTS["ru"])["own"] == "Только здесь: да."


def test_an_id_names_its_file():
    path = build.Prompt.from_id("asterisk/ru/digits/7").audio_path
    assert str(path) == "usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU/digits/7.g722"
    for identifier in ("asterisk/de/hello", "tuxpaint/ru/hello", "asterisk/ru"):
        with pytest.raises(build.PackError, match=r"expected asterisk/en\|es\|fr\|it\|ru/<name>"):
            build.Prompt.from_id(identifier)


def test_originals_are_described(originals):
    assert originals.describe("asterisk/ru/digits/7") == {
        "language": "ru",
        "speaker": "asterisk-ru_RU_f_IvrvoiceRU",
        "text": "семь",
        "translation": {"en": "seven"},
    }
    assert "translation" not in originals.describe("asterisk/ru/own")
    assert "translation" not in originals.describe("asterisk/en/hello")
    with pytest.raises(build.PackError, match="asterisk-core-sounds-ru has no text for 'absent'"):
        originals.describe("asterisk/ru/absent")
    with pytest.raises(build.PackError, match=r"asterisk-core-sounds-it: no texts .*/core-sounds-it\.txt\.gz"):
        originals.describe("asterisk/it/hello")


def test_g722_is_decoded(tmp_path: Path):
    write_g722(tmp_path / "a.g722", tone())
    found = build.decode_g722(tmp_path / "a.g722")
    assert found.dtype == np.float32 and len(found) == 2 * (tmp_path / "a.g722").stat().st_size
    delay = 22  # of the filters of G.722, in samples
    assert np.corrcoef(found[delay:], tone()[: len(found) - delay])[0, 1] > 0.99
    assert 0.45 < np.abs(found).max() < 0.55


def test_a_rebuilt_pack_passes_its_own_check(originals, tmp_path: Path, capsys):
    write_g722(tmp_path / build.Prompt.from_id("asterisk/ru/digits/7").audio_path, tone())
    build.rebuild([entry_of("asterisk/ru/digits/7", split="dev")], originals, tmp_path / "pack")
    [entry] = build.read_manifest(tmp_path / "pack/manifest.jsonl")
    assert (entry["text"], entry["split"]) == ("семь", "dev")
    assert entry["duration"] == pytest.approx(SECONDS, abs=1e-4)
    assert build.check(tmp_path / "pack", tmp_path / "pack") == []


def test_a_missing_recording_stops_the_rebuild_before_writing(originals, tmp_path: Path):
    with pytest.raises(build.PackError, match=r"1 of 1 .*\n.*package asterisk-core-sounds-ru-g722 has no usr/share"):
        build.rebuild([entry_of("asterisk/ru/hello")], originals, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_shipped_splits_share_no_prompt(capsys):
    shipped = build.read_manifest(CORPUS / "manifest.jsonl")
    assert len(shipped) == 1495
    assert build.check_splits(shipped) == []
    moved = next(entry for entry in shipped if entry["id"] == "asterisk/es/digits/7")
    broken = [entry | {"split": "train"} if entry is moved else entry for entry in shipped]
    problems = build.check_splits(broken)
    assert any(problem.startswith("item 'digits/7' is in") for problem in problems)
    assert any(problem.startswith("en 'seven' is in") for problem in problems)


def test_times_agree_with_the_audio_files():
    """Recordings lie one after another with 0.1 s between, and the last ends 0.1 s before its file does."""
    tracks = defaultdict(list)
    for entry in build.read_manifest(CORPUS / "manifest.jsonl"):
        tracks[entry["audio"]].append(entry)
    assert tracks.keys() == {f"{language}.opus" for language in build.VOICES}
    for audio, entries in tracks.items():
        info = soundfile.info(str(CORPUS / audio))
        starts = [entry["start"] for entry in entries]
        ends = [entry["start"] + entry["duration"] + 0.1 for entry in entries]
        assert info.samplerate == 16000 and info.channels == 1
        assert starts[0] == 0.0
        assert np.allclose(starts[1:], ends[:-1], rtol=0, atol=2e-4)
        assert info.duration == pytest.approx(ends[-1], abs=1e-3)


def test_the_command_line(capsys, tmp_path: Path):
    assert build.main(["--check-splits"]) == 0
    assert "OK" in capsys.readouterr().out
    assert build.main(["--packages", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert "no asterisk-core-sounds-en_*.deb" in capsys.readouterr().err
