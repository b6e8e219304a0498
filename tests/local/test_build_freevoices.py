"""The freevoices pack is consistent in itself, and local/build_freevoices.py reads its sources rightly."""

import importlib.util
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = REPOSITORY / "egs/freevoices/corpus"


def load_script() -> ModuleType:
    """Programs in local/ are not part of the package: load this one from its path."""
    spec = importlib.util.spec_from_file_location("build_freevoices", REPOSITORY / "local/build_freevoices.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


build = load_script()


@pytest.fixture(scope="module")
def shipped() -> list[dict]:
    return build.read_manifest(CORPUS / "manifest.jsonl")


@pytest.fixture
def originals(tmp_path: Path):
    """A miniature of the unpacked packages: one line of dialogue and one stamp."""
    share = tmp_path / "usr/share"
    script = share / "games/fillets-ng/script/reef"
    stamps = share / "tuxpaint/stamps/animals/birds"
    sound = share / "games/fillets-ng/sound/reef/cs"
    for folder in (script, stamps, sound):
        folder.mkdir(parents=True)
    (script / "dialogs_en.lua").write_text('dialogId("a-m-b", "font_small", "Hello.")\n')
    (script / "dialogs_cs.lua").write_text('dialogId("a-m-b", "font_small", "Hello.")\ndialogStr("Ahoj.")\n')
    (script / "dialogs_de.lua").write_text('dialogId("a-m-b", "font_small", "Hello.")\ndialogStr("Hallo.")\n')
    (script / "dialogs_de_CH.lua").write_text('dialogId("a-m-b", "font_small", "Hello.")\ndialogStr("Hoi.")\n')
    (stamps / "owl.txt").write_text("An owl. \nfr.utf8=Un hibou.\nes.utf8=\nit.utf8=Un gufo.\n")
    tone = np.sin(np.arange(22051) / 22050 * 2 * np.pi * 440) * 0.5
    soundfile.write(sound / "a-m-b.ogg", np.stack([tone, tone], axis=1), 22050, format="OGG", subtype="VORBIS")
    return build.Originals(tmp_path)


LUA = r"""
-- a comment
dialogId("x-v-quote", "font_big", "Say \"no\" in C:\\WINDOWS.")
dialogStr("Sag \"nein\".") -- FIXME


dialogId("x-m-untranslated", "font_small", "Nothing yet.")
dialogId("x-m-two", "font_small",
    "Two lines.")
dialogStr("Dvě řádky.")
"""


def test_dialogs_are_parsed():
    dialogs = build.parse_dialogs(LUA)
    assert list(dialogs) == ["x-v-quote", "x-m-untranslated", "x-m-two"]
    assert dialogs["x-v-quote"] == build.Dialog("font_big", r'Say "no" in C:\WINDOWS.', 'Sag "nein".')
    assert dialogs["x-m-untranslated"].text == ""
    assert dialogs["x-m-two"].text == "Dvě řádky."


def test_stamp_is_parsed():
    found = build.parse_stamp("A cow. \nca.utf8=Una vaca.\nca@valencia.utf8=La vaca.\n#note\nzh_CN.utf8= 牛 \n")
    assert found == {"en": "A cow.", "ca": "Una vaca.", "ca@valencia": "La vaca.", "zh_CN": "牛"}


@pytest.mark.parametrize(
    ("identifier", "path", "package"),
    [
        (
            "fillets/cs/airplane/let-m-divna",
            "usr/share/games/fillets-ng/sound/airplane/cs/let-m-divna.ogg",
            "fillets-ng-data-cs",
        ),
        (
            "tuxpaint/be/seasonal/easter/bunny-head",
            "usr/share/tuxpaint/stamps/seasonal/easter/bunny-head_desc_be.ogg",
            "tuxpaint-stamps-default",
        ),
    ],
)
def test_id_names_its_file_and_package(identifier: str, path: str, package: str):
    recording = build.Recording.from_id(identifier)
    assert (str(recording.audio_path), recording.package) == (path, package)


@pytest.mark.parametrize("identifier", ["fillets/cs", "elsewhere/cs/a/b", "tuxpaint/fr/cow"])
def test_foreign_id_is_refused(identifier: str):
    with pytest.raises(build.PackError, match="expected fillets"):
        build.Recording.from_id(identifier)


def test_originals_are_described(originals):
    assert originals.describe("fillets/cs/reef/a-m-b") == {
        "language": "cs",
        "speaker": "fillets-cs-font_small",
        "text": "Ahoj.",
        "translation": {"en": "Hello.", "de": "Hallo."},
    }
    assert originals.describe("tuxpaint/fr/animals/birds/owl") == {
        "language": "fr",
        "speaker": "tuxpaint-fr",
        "text": "Un hibou.",
        "translation": {"en": "An owl."},
        "topic": "animals",
    }


def test_absent_text_is_named(originals):
    with pytest.raises(build.PackError, match=r"script/reef/\*dialogs_cs.lua lacks dialog 'c-m-d'"):
        originals.describe("fillets/cs/reef/c-m-d")
    with pytest.raises(build.PackError, match="has no text in 'es'"):
        originals.describe("tuxpaint/es/animals/birds/owl")


def entry_of(identifier: str, text: str = "Ahoj.", split: str = "train") -> dict:
    place = {"audio": "fillets_cs.opus", "start": 0.0, "duration": 1.0}
    return place | {"id": identifier, "language": "cs", "speaker": "s", "text": text, "translation": {}, "split": split}


def test_rebuilt_pack_passes_its_own_check(originals, tmp_path: Path, capsys):
    listed = [entry_of("fillets/cs/reef/a-m-b")]
    build.rebuild(listed, originals, tmp_path / "pack")
    [entry] = build.read_manifest(tmp_path / "pack/manifest.jsonl")
    assert entry["text"] == "Ahoj." and entry["duration"] == pytest.approx(22051 / 22050, abs=1e-4)
    assert soundfile.info(str(tmp_path / "pack/fillets_cs.opus")).frames == 16001 + build.GAP
    assert build.check(tmp_path / "pack", tmp_path / "pack") == []


def test_missing_recording_stops_the_rebuild_before_writing(originals, tmp_path: Path):
    with pytest.raises(build.PackError, match=r"1 of 1 .*\n.*package fillets-ng-data-nl has no usr/share"):
        build.rebuild([entry_of("fillets/nl/reef/a-m-b")], originals, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_missing_package_is_named(tmp_path: Path):
    with pytest.raises(build.PackError, match=r"no fillets-ng-data_\*.deb in .*expected version 1.0.1-1.1"):
        build.unpack_packages(tmp_path / "work", tmp_path)


def test_differences_are_reported():
    old, new = entry_of("fillets/cs/reef/a-m-b"), entry_of("fillets/cs/reef/a-m-b", text="Nazdar.")
    new["start"] += 0.0005
    assert build.compare_entries(new, old) == ["fillets/cs/reef/a-m-b: text shipped 'Ahoj.', rebuilt 'Nazdar.'"]
    assert len(build.compare_entries(new | {"duration": 1.01}, old)) == 2


def test_broken_manifest_names_the_line(tmp_path: Path):
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(entry_of("fillets/cs/reef/a-m-b")) + "\n{oops\n")
    with pytest.raises(build.PackError, match=r"manifest.jsonl:2: expected one JSON object, found '\{oops"):
        build.read_manifest(path)
    path.write_text('{"id": "x"}\n')
    with pytest.raises(build.PackError, match=r"manifest.jsonl:1: lacks audio, language"):
        build.read_manifest(path)


def test_shipped_splits_share_no_sentence(shipped: list[dict]):
    assert len(shipped) == 8851
    assert build.check_splits(shipped) == []


def test_a_shared_sentence_is_found(shipped: list[dict]):
    """One recording of a parallel sentence moved to another split: its item, text and translations all stand out."""
    moved = next(entry for entry in shipped if entry["id"] == "fillets/cs/airplane/let-m-oko")
    broken = [entry | {"split": "train"} if entry is moved else entry for entry in shipped]
    problems = build.check_splits(broken)
    assert any(problem.startswith("item 'fillets/airplane/let-m-oko'") for problem in problems)
    assert any(problem.startswith("nl 'dit is geen glazen oog") for problem in problems)


def test_case_and_punctuation_do_not_hide_a_sentence():
    entries = [entry_of("fillets/cs/reef/a", "Ahoj!"), entry_of("fillets/cs/reef/b", "ahoj", split="test")]
    assert build.check_splits(entries) == ["cs 'ahoj' is in ['test', 'train']"]


def test_times_agree_with_the_audio_files(shipped: list[dict]):
    """Recordings lie one after another with 0.1 s between, and the last ends 0.1 s before its file does."""
    tracks = defaultdict(list)
    for entry in shipped:
        tracks[entry["audio"]].append(entry)
    assert len(tracks) == 11
    for audio, entries in tracks.items():
        info = soundfile.info(str(CORPUS / audio))
        starts = [entry["start"] for entry in entries]
        ends = [entry["start"] + entry["duration"] + 0.1 for entry in entries]
        assert info.samplerate == build.SAMPLE_RATE and info.channels == 1
        assert starts[0] == 0.0
        assert np.allclose(starts[1:], ends[:-1], rtol=0, atol=2e-4)
        assert info.duration == pytest.approx(ends[-1], abs=1e-3)


def test_command_line(capsys, tmp_path: Path):
    assert build.main(["--check-splits"]) == 0
    assert "OK" in capsys.readouterr().out
    assert build.main(["--check", "--output", str(tmp_path)]) == 2
    assert "no such manifest" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        build.main(["--output", str(CORPUS)])
