"""One module per dataset: the published layout in, lhotse CutSets out.

A corpus module has
- ``SOURCES``: file patterns under the corpus folder whose change means that the corpus changed;
- ``read(path, languages) -> {split: iterable of cuts}``: every cut has one supervision with ``text`` as published,
  ``language`` (BCP-47), ``speaker`` and, where known, ``custom["translation"][language]``.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from lhotse import AudioSource, Recording


def corpus_module(name: str) -> ModuleType:
    """The module that reads corpus ``name``; ValueError lists the known ones."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise ValueError(f"corpus.name: no module masr/corpora/{name}.py; known corpora: {', '.join(known)}")
    return importlib.import_module(f"masr.corpora.{name}")


def recording_of(path: Path) -> Recording:
    """What an audio file holds; one that cannot be read has no samples, so that stage 0 rejects its cuts."""
    try:
        return Recording.from_file(path)
    except Exception:  # lhotse's backends raise many kinds; all mean that the file is not readable
        source = AudioSource("file", [0], str(path))
        return Recording(path.stem, [source], sampling_rate=16000, num_samples=0, duration=0)
