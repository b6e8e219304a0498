"""The rooms of masr as README.md lists them, top floor first: each imports only from rooms below it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def floors() -> dict[str, int]:
    """The floor of each room, 0 at the top."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| room |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    return {room.removesuffix(".py"): n for n, row in enumerate(rows) for room in re.findall(r"`([\w.]+)/?`", row)}


def imports() -> Iterator[tuple[Path, str, str]]:
    """File, its room, and a room from which it imports."""
    for path in sorted((ROOT / "masr").rglob("*.py")):
        room = path.relative_to(ROOT / "masr").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("masr."):
                yield path, room, str(node.module).split(".")[1]


def test_every_room_is_listed() -> None:
    rooms = {path.stem for path in (ROOT / "masr").iterdir() if not path.name.startswith("_")}
    assert floors().keys() == rooms


def test_rooms_import_only_from_below() -> None:
    floor = floors()
    found = [(path, room, other) for path, room, other in imports() if room != "__init__" and room != other]
    assert len(found) > 100
    upward = [f"{path.relative_to(ROOT)} imports {other}" for path, room, other in found if floor[room] > floor[other]]
    assert not upward


def test_no_file_of_models_imports_one_that_imports_it() -> None:
    by_file: dict[str, set[str]] = {}
    for path in (ROOT / "masr/models").glob("*.py"):
        by_file[path.stem] = set(re.findall(r"from masr\.models\.(\w+) import", path.read_text(encoding="utf-8")))
    assert not [(name, other) for name, others in by_file.items() for other in others if name in by_file[other]]
