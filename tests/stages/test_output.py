"""A stage runs once: complete output is left alone, anything else is redone."""

import gzip
import json
from pathlib import Path

import pytest

from masr.files import file_hash
from masr.stages.output import SEAL, StageOutput, seal_of


@pytest.fixture
def sealed(tmp_path: Path) -> StageOutput:
    """A complete folder with two files, one of them in a subfolder."""
    output = StageOutput("features", tmp_path / "out", {"config": {"speeds": (0.9, 1.0)}})
    assert output.begin()
    (output.folder / "train").mkdir()
    (output.folder / "train/00000.lca").write_bytes(b"features")
    (output.folder / "statistics.json").write_text("{}")
    output.seal()
    return output


def test_a_complete_folder_is_left_alone_and_said_to_be(sealed, capsys):
    again = StageOutput("features", sealed.folder, {"config": {"speeds": [0.9, 1.0]}})
    assert not again.begin()
    assert f"features: complete in {sealed.folder} (--force redoes it)" in capsys.readouterr().out
    assert (sealed.folder / "statistics.json").exists()


@pytest.mark.parametrize("inputs", [{"config": {"speeds": [1.0]}}, {}, {"config": {"speeds": [0.9, 1.0]}, "more": 1}])
def test_other_inputs_redo_it_from_an_empty_folder(sealed, inputs):
    assert StageOutput("features", sealed.folder, inputs).begin()
    assert list(sealed.folder.iterdir()) == []


def test_when_a_compressed_file_was_written_is_nothing_that_counts(tmp_path):
    hashes = set()
    for when in (1, 2):
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"the same", mtime=when))
        hashes.add(file_hash(tmp_path / "a.jsonl.gz"))
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "damaged",
    [b"", b"nonsense", gzip.compress(b"x" * 99, mtime=1)[:-9], b"\x1f\x8b" + bytes(30)],
    ids=["empty", "not gzip", "cut off", "nonsense after the magic number"],
)
def test_a_damaged_compressed_file_is_redone(tmp_path, damaged):
    output = StageOutput("prepare", tmp_path / "out", {})
    assert output.begin()
    (output.folder / "a.jsonl.gz").write_bytes(gzip.compress(b"the same"))
    output.seal()
    assert output.is_complete()
    (output.folder / "a.jsonl.gz").write_bytes(damaged)
    assert not output.is_complete()


def test_force_redoes_it(sealed):
    assert sealed.begin(force=True)
    assert list(sealed.folder.iterdir()) == []


@pytest.mark.parametrize("damage", ["changed", "missing", "no seal", "broken seal", "empty seal"])
def test_a_folder_that_is_not_as_it_was_written_is_redone(sealed, damage):
    match damage:
        case "changed":
            (sealed.folder / "train/00000.lca").write_bytes(b"Features")
        case "missing":
            (sealed.folder / "statistics.json").unlink()
        case "no seal":
            (sealed.folder / SEAL).unlink()
        case "broken seal":
            (sealed.folder / SEAL).write_text((sealed.folder / SEAL).read_text()[:-9])
        case "empty seal":
            (sealed.folder / SEAL).write_text("{}")
    assert not sealed.is_complete()
    assert sealed.begin()


def test_without_clearing_only_the_seal_goes(sealed):
    assert sealed.begin(force=True, clear=False)
    assert (sealed.folder / "statistics.json").exists()
    assert not (sealed.folder / SEAL).exists()


def test_it_is_not_complete_before_it_is_sealed(tmp_path):
    output = StageOutput("vocab", tmp_path / "deep/out", {})
    assert output.begin()
    assert not output.is_complete()
    with pytest.raises(FileNotFoundError, match=r"deep/out is not complete: run `masr vocab`"):
        seal_of(output.folder, "vocab")


def test_sealing_some_files_ignores_changes_of_the_others(tmp_path):
    output = StageOutput("train", tmp_path, {})
    (tmp_path / "averaged.safetensors").write_text("weights")
    (tmp_path / "log.jsonl").write_text("a line")
    output.seal("*.safetensors")
    (tmp_path / "log.jsonl").write_text("two lines")
    assert output.is_complete()
    (tmp_path / "averaged.safetensors").write_text("others")
    assert not output.is_complete()


def test_the_seal_of_a_folder_changes_with_its_content(sealed):
    before = seal_of(sealed.folder, "features")
    sealed.begin(force=True, clear=False)
    sealed.seal()
    assert seal_of(sealed.folder, "features") == before
    sealed.begin(force=True, clear=False)
    (sealed.folder / "statistics.json").write_text("[]")
    sealed.seal()
    assert seal_of(sealed.folder, "features") != before
    assert json.loads((sealed.folder / SEAL).read_text())["files"].keys() == {"statistics.json", "train/00000.lca"}
