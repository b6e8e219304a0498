"""Fixtures of the stages: a corpus of five recordings that a test may spoil, and a process that dies half-way."""

import os
import pkgutil
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from masr.config import Config
from masr.config_files import load_config

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
import miniatures

SMALL = """\
features: {speed_perturbation: [1.0], jobs: 1}
data: {batch_seconds: 6, buckets: 2, workers: 0, max_bad_fraction: 1.0}
model:
  encoder: {layers: 1, width: 16, heads: 2, feedforward: 16, kernel: 3, subsampling_channels: 4}
  attention_decoder: {weight: 0.3, layers: 1, width: 16, heads: 2, feedforward: 16}
train: {updates: 2, warmup: 1, validate_every: 2, threads: 1}
decode: {methods: [ctc-greedy, joint-beam], beam: 2, n_best: 2}
"""


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1 without new processes, each of which would import torch; tests/recipes runs it with them."""
    monkeypatch.setattr("masr.stages.features.ProcessPoolExecutor", ThreadPoolExecutor)


@pytest.fixture
def half_written() -> Callable[[Path], object]:
    """``half_written(folder)`` makes a complete folder look as if its stage had been killed before the end."""
    return lambda folder: (folder / "complete.json").rename(folder / "unfinished.json")


@dataclass
class Small:
    """A working directory with ``corpus/`` (Spanish: 3 train, 1 dev, 1 test) and ``small.yaml``."""

    folder: Path
    rows: list[dict]
    """Lines of the manifest as it came."""

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    def config(self, *overrides: str) -> Config:
        return load_config("small.yaml", overrides)

    def publish(self, *more: dict) -> None:
        """Rewrites the manifest: the five recordings, and ``more`` lines."""
        miniatures.write_manifest(self.corpus, [*self.rows, *more])

    def bad_row(self, **fields: object) -> dict:
        """A line for the training split, like the first one but for ``fields``."""
        return self.rows[0] | {"id": "bad", "split": "train"} | fields

    def rejected(self, folder: str = "manifests") -> dict[str, str]:
        """Reasons by utterance in ``data/<folder>/rejected.tsv``; empty when there is no such file."""
        path = self.folder / "data" / folder / "rejected.tsv"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return dict(line.split("\t") for line in lines)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("small") / "corpus"
    return folder, miniatures.freevoices(folder, languages=("es",), counts={"train": 3, "dev": 1, "test": 1})


@pytest.fixture
def small(small_corpus: tuple[Path, list[dict]], workdir: Path) -> Small:
    shutil.copytree(small_corpus[0], workdir / "corpus")
    (workdir / "small.yaml").write_text(SMALL)
    return Small(workdir, small_corpus[1])


@pytest.fixture
def ready(small: Small) -> Small:
    """`small` after stages 0 to 2."""
    from masr.stages import features, prepare, vocab

    for stage in (prepare, features, vocab):
        stage.run(small.config())
    return small


@pytest.fixture
def trained(ready: Small) -> Small:
    """`ready` with an untrained model where stage 3 leaves its own."""
    from masr.models.folder import save_model
    from masr.models.recognizer import Recognizer
    from masr.stages.features import load_statistics
    from masr.stages.train import experiment_folder
    from masr.stages.vocab import load_tokenizer

    config = ready.config()
    torch.manual_seed(0)
    model = Recognizer(config, load_tokenizer(config))
    model.set_statistics(*load_statistics(config).tensors())
    save_model(experiment_folder(config), model)
    return ready


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and bytes of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    return _contents


@pytest.fixture
def kill_at() -> Callable[[str, int, Callable[[], None]], None]:
    """``kill_at(target, number, program)`` runs ``program`` in another process, which dies by kill -9 when it calls
    ``target`` (``module:function``) for the ``number``-th time."""
    return _run_and_die


def _run_and_die(target: str, number: int, program: Callable[[], None]) -> None:
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, f"{target} was not called"
        return
    try:
        _die_in_call(target, number)
        program()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # a child must never go on as a second pytest


def _die_in_call(target: str, number: int) -> None:
    owner, name = target.rsplit(".", 1) if "." in target.split(":")[1] else target.split(":")
    owner = pkgutil.resolve_name(owner)
    function, calls = getattr(owner, name), []

    def call(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, name, call)
