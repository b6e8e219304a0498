"""Shared fixtures: a miniature of the freevoices corpus, and a recipe folder with its data prepared by stages 0-2."""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from masr.config import Config
from masr.config_files import load_config

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package, but share tiny_whisper

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "egs/freevoices/corpus"
LANGUAGES = ("el", "es", "ro")
RECORDINGS = {"train": 12, "dev": 4, "test": 4}  # of each language
SAMPLING_RATE = 16000
GAP = 0.1  # seconds of silence after each recording, as in the published files

TINY = """\
data_dir: {folder}/data
corpus: {{path: {corpus}}}
features: {{speed_perturbation: [0.9, 1.0], jobs: 1}}
data: {{batch_seconds: 6, buckets: 2, workers: 0}}
model:
  encoder: {{layers: 2, width: 32, heads: 2, feedforward: 32, kernel: 5, subsampling_channels: 8}}
train: {{updates: 8, learning_rate: 2.0e-3, warmup: 2, validate_every: 4, log_every: 1, threads: 1}}
"""


@dataclass
class Recipe:
    """A recipe folder with ``data/`` of stages 0-2 (to be read only) and ``conf/tiny.yaml``; paths are absolute."""

    folder: Path
    corpus: Path

    @property
    def conf(self) -> Path:
        """A model that trains 8 updates in a second; its name, and so its exp/<name>, is ``tiny``."""
        return self.folder / "conf/tiny.yaml"

    def config(self, *overrides: str) -> Config:
        """The config of ``conf``, with overrides such as ``train.updates=4``."""
        return load_config(self.conf, overrides)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as egs/freevoices/corpus: real Greek, Spanish and Romanian speech, 60 recordings of about 1 s.

    ``manifest.jsonl`` and one Opus file for each language; 12 recordings of each in train, 4 in dev, 4 in test.
    """
    with _alone_in(tmp_path_factory, "corpus") as folder:
        manifest = folder / "manifest.jsonl"
        if not manifest.exists():
            manifest.write_text("".join(_cut_recordings(folder)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def prepared(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A `Recipe` on ``tiny_corpus``. Training writes to ``exp/`` of the working directory: see ``workdir``."""
    from masr.stages import features, prepare, vocab

    with _alone_in(tmp_path_factory, "recipe") as folder:
        recipe = Recipe(folder, tiny_corpus)
        recipe.conf.parent.mkdir(exist_ok=True)
        recipe.conf.write_text(TINY.format(folder=folder, corpus=tiny_corpus), encoding="utf-8")
        for stage in (prepare, features, vocab):
            stage.run(recipe.config())  # does nothing when another pytest worker has done it
    return recipe


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Whisper of a few thousand random weights."""
    from tiny_whisper import write_tiny_whisper

    return write_tiny_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="session")
def speech(tiny_corpus: Path) -> list[np.ndarray]:
    """Real speech as long as the utterances of tiny_whisper."""
    from tiny_whisper import UTTERANCES

    samples, rate = soundfile.read(next(tiny_corpus.glob("*_es.opus")), dtype="float32")
    return [samples[: int(seconds * rate)] for _, _, seconds in UTTERANCES]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def _alone_in(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder of this test run that the workers of pytest-xdist share; they enter one after the other."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _cut_recordings(folder: Path) -> Iterator[str]:
    """Manifest lines of the chosen recordings, whose audio is written to ``folder``."""
    rows = [json.loads(line) for line in (CORPUS / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    for language in LANGUAGES:
        chosen = [row for split, number in RECORDINGS.items() for row in _short(rows, language, split)[:number]]
        yield from (json.dumps(row, ensure_ascii=False) + "\n" for row in _copy_audio(chosen, folder))


def _short(rows: list[dict], language: str, split: str) -> list[dict]:
    """Recordings of about a second that leave CTC enough frames even when they are played faster."""
    rows = [row for row in rows if row["language"] == language and row["split"] == split]
    return [row for row in rows if 0.8 <= row["duration"] <= 1.6 and len(row["text"]) < 12 * row["duration"]]


def _copy_audio(rows: list[dict], folder: Path) -> list[dict]:
    """Writes the audio of some rows of one language one after another; the rows as they then stand in the manifest."""
    name, copies, at = rows[0]["audio"], [], 0.0
    with (
        soundfile.SoundFile(CORPUS / name) as source,
        soundfile.SoundFile(folder / name, "w", SAMPLING_RATE, 1, format="OGG", subtype="OPUS") as target,
    ):
        for row in rows:
            source.seek(round(row["start"] * SAMPLING_RATE))
            target.write(source.read(round((row["duration"] + GAP) * SAMPLING_RATE), fill_value=0.0))
            copies.append(row | {"start": round(at, 4)})
            at += round((row["duration"] + GAP) * SAMPLING_RATE) / SAMPLING_RATE
    return copies
