"""Makes ``miniatures`` importable, as tests are not a package, and copies recipes to where a test may run them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent  # where masr and accelerate are


@dataclass
class Copy:
    """A copy of ``egs/<name>`` (run.sh and conf/) beside a copy of utils/."""

    folder: Path
    path: str
    """The PATH that run.sh sees."""

    def run(self, *arguments: str, cwd: Path | str = "/") -> subprocess.CompletedProcess[str]:
        """``./run.sh <arguments>``, called from another folder."""
        environment = os.environ | {"PATH": self.path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        command = [str(self.folder / "run.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture
def copy_recipe(tmp_path: Path) -> Callable[[str], Copy]:
    """``copy_recipe("freevoices")``: a recipe to run, without its data and models."""

    def copy(name: str) -> Copy:
        folder = tmp_path / "egs" / name
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "egs" / name / "run.sh", folder)
        shutil.copytree(ROOT / "egs" / name / "conf", folder / "conf")
        shutil.copytree(ROOT / "utils", tmp_path / "utils")
        return Copy(folder, f"{TOOLS}:{os.environ['PATH']}")

    return copy
