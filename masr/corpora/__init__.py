"""One module per dataset: the published layout in, lhotse CutSets out.

A corpus module has
- ``SOURCES``: file patterns under the corpus folder whose change means that the corpus changed;
- ``read(path, languages) -> {split: iterable of cuts}``: every cut has one supervision with ``text`` as published,
  ``language`` (BCP-47), ``speaker`` and, where known, ``custom["translation"][language]``.
"""

import importlib
import pkgutil
from types import ModuleType


def corpus_module(name: str) -> ModuleType:
    """The module that reads corpus ``name``; ValueError lists the known ones."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise ValueError(f"corpus.name: no module masr/corpora/{name}.py; known corpora: {', '.join(known)}")
    return importlib.import_module(f"masr.corpora.{name}")
