"""Reading: whatever is wrong with a file is one line that names it; writing: a file is whole or as it was."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from masr.files import DamagedFile, read_json, reading, write_whole, writing


def bytes_of(path: Path) -> bytes:
    with gzip.open(path) as file:
        return file.read()


def sum_of(path: Path) -> float:
    return sum(json.loads(path.read_text(encoding="utf-8"))["values"])


READERS = {
    "gzip": (bytes_of, gzip.compress(b"some text, and more of it" * 9)),
    "json": (sum_of, b'{"values": [1, 2, 3]}'),
    "safetensors": (load_file, None),
    "torch": (lambda path: torch.load(path, weights_only=True), None),
    "utf-8": (lambda path: path.read_text(encoding="utf-8"), "ěščř".encode()),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", ["empty", "half", "garbage", "zeros", "deep"])
def test_whatever_is_wrong_with_a_file_names_it_and_the_way_out(name, damage, tmp_path):
    read, content = READERS[name]
    path = tmp_path / "some.file"
    if name == "safetensors":
        save_file({"a": torch.zeros(3)}, path)
    elif name == "torch":
        torch.save({"a": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with reading(path):
        read(path)
    whole = path.read_bytes()
    spoilt = {
        "empty": b"", "half": whole[: len(whole) // 2] or b"\xff", "garbage": b"\xff\xfe\x00 garbage" * 30,
        "zeros": bytes(len(whole)), "deep": b"[" * 200_000,
    }  # fmt: skip
    path.write_bytes(spoilt[damage])
    readable = {("gzip", "empty"), ("utf-8", "empty"), ("utf-8", "half"), ("utf-8", "zeros"), ("utf-8", "deep")}
    if (name, damage) in readable:
        return
    with pytest.raises(DamagedFile) as caught, reading(path, "make it again"):
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged (") and message.endswith("; make it again")
    assert "\n" not in message and len(message) < 600


@pytest.mark.parametrize(
    "content", ["[1]", "null", "5", '"text"', '{"values": 5}', '{"other": []}', '{"values": ["a"]}']
)
def test_json_that_holds_something_else_is_damaged_too(content, tmp_path):
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(DamagedFile, match=str(path)), reading(path):
        sum_of(path)
    if not content.startswith("{"):
        with pytest.raises(DamagedFile, match="expected a JSON object"):
            read_json(path)


def test_what_the_system_refuses_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), reading(tmp_path / "none"):
        (tmp_path / "none").read_text()
    with pytest.raises(IsADirectoryError), reading(tmp_path):
        tmp_path.read_text()


def test_an_error_that_names_the_file_already_stays_as_it_is(tmp_path):
    with pytest.raises(ValueError, match=f"^{tmp_path}, line 3: no$"), reading(tmp_path):
        raise ValueError(f"{tmp_path}, line 3: no")


def test_a_bug_is_no_damage(tmp_path):
    with pytest.raises(ZeroDivisionError), reading(tmp_path):
        1 / 0  # noqa: B018


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, "old")
    (tmp_path / "a.json.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, "new" * 100_000)
    assert str(caught.value.filename) == str(path)
    assert path.read_text() == "old" and not (tmp_path / "a.json.partial").exists()


@pytest.mark.parametrize("within", [reading, writing])
def test_what_masr_says_itself_stays_as_it_is(within, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^run `masr prepare` first$"), within(tmp_path):
        raise FileNotFoundError("run `masr prepare` first")
