"""Arguments of a command become the files that they mean, each once; what is missing is named."""

import os
from pathlib import Path

import pytest

from masr.recognize.sources import list_sources


@pytest.fixture
def folder(workdir: Path) -> Path:
    """calls/{b.MP3, a.wav, notes.txt, ._a.wav, week 2/c.mp4, .trash/d.wav}, list.txt, [x].wav."""
    for name in ("b.MP3", "a.wav", "notes.txt", "._a.wav", "week 2/c.mp4", ".trash/d.wav"):
        path = workdir / "calls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("list.txt").write_text("\ufeff# calls\r\ncalls/b.MP3\r\n\r\n  calls/*.wav\r\n", encoding="utf-8")
    Path("[x].wav").touch()
    return workdir


def names(*arguments, recursive: bool = False) -> list[str]:
    return [str(path) for path in list_sources(arguments, recursive)]


def test_files_of_every_kind_of_argument_in_their_order(folder):
    assert names("calls/b.MP3", "calls/a.wav") == ["calls/b.MP3", "calls/a.wav"]
    assert names("calls", recursive=True) == ["calls/a.wav", "calls/b.MP3", "calls/week 2/c.mp4"]
    assert names("calls/*.wav", "calls/**/*.mp4") == ["calls/a.wav", "calls/week 2/c.mp4"]
    assert names("@list.txt") == ["calls/b.MP3", "calls/a.wav"]
    assert names("calls/notes.txt") == ["calls/notes.txt"], "named, so wanted"
    assert names("[x].wav") == ["[x].wav"]


def test_entries_of_a_list_are_relative_to_it(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert names(f"@{folder}/list.txt") == [f"{folder}/calls/b.MP3", f"{folder}/calls/a.wav"]


def test_duplicates_are_taken_once(folder):
    assert names("calls/a.wav", "./calls/a.wav", folder / "calls/a.wav", "calls/*.wav") == ["calls/a.wav"]


def test_names_that_are_not_utf_8(folder):
    name = b"calls/caf\xe9.wav"
    Path(os.fsdecode(name)).touch()
    Path("odd.txt").write_bytes(name + b"\n")
    assert names(name) == names("@odd.txt") == [os.fsdecode(name)]


def test_what_is_missing_is_named(folder):
    Path("list.txt").write_text("calls/a.wav\nmissing.wav\n")
    with pytest.raises(FileNotFoundError, match=r"no such file: x.wav, \*.ogg, list.txt:2: missing.wav$"):
        names("x.wav", "calls/a.wav", "*.ogg", "@list.txt")
    with pytest.raises(FileNotFoundError, match=r"no such file: other.txt \(a list of files\)"):
        names("@other.txt")
    with pytest.raises(FileNotFoundError, match="no such file: 0, 1, 2, 3, 4 and 2 others"):
        names(*"0123456")


def test_a_folder_needs_recursive_and_nothing_is_an_error(folder):
    with pytest.raises(IsADirectoryError, match="calls is a folder: add -r"):
        names("calls")
    Path("empty").mkdir()
    for arguments in (["empty"], []):
        with pytest.raises(FileNotFoundError, match="no recordings"):
            names(*arguments, recursive=True)
