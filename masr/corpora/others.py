"""Splits of further corpora (``corpus.also``) beside those of the corpus that a config is about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from masr.config import OtherCorpus
from masr.corpora import corpus_module
from masr.corpora.tables import BadRow


@dataclass(frozen=True)
class OtherSplit:
    """A split of another corpus."""

    name: str
    """Module of masr.corpora that reads the corpus."""
    path: str
    """Folder of the corpus."""
    split: str
    """What the corpus calls it."""
    languages: list[str] = field(default_factory=list)
    """Those to use; empty means all."""

    def description(self) -> dict[str, Any]:
        """What the split is, wherever its corpus lies; plain values."""
        description = asdict(self)
        del description["path"]
        return description


def other_splits(corpora: Sequence[OtherCorpus]) -> dict[str, OtherSplit]:
    """All splits of ``corpus.also``, by what they are called in the config."""
    found: dict[str, OtherSplit] = {}
    for corpus in corpora:
        for name, split in corpus.splits.items():
            found[name] = OtherSplit(corpus.name, corpus.path, split, corpus.languages)
    return found


def read_others(splits: Mapping[str, OtherSplit]) -> dict[str, Iterable[Cut | BadRow]]:
    """Cuts of the splits, by what they are called in the config.

    FileNotFoundError for a corpus that is not there, ValueError for a split that it lacks.
    """
    corpora: dict[tuple, Mapping[str, Iterable[Cut | BadRow]]] = {}
    cuts: dict[str, Iterable[Cut | BadRow]] = {}
    for name, other in splits.items():
        key = (other.name, other.path, *other.languages)
        if key not in corpora:
            corpora[key] = corpus_module(other.name).read(Path(other.path), other.languages)
        published = corpora[key]
        if not published.get(other.split):
            found = ", ".join(published) or "none"
            raise ValueError(
                f"corpus.also: {other.path}: no recordings for {other.split}, which is to be {name}; "
                f"splits found: {found}"
            )
        cuts[name] = published[other.split]
    return cuts


def transcript_states(path: Path, patterns: Sequence[str]) -> dict[str, list[int]]:
    """Size and time of the files that a corpus is read from, by their names below its folder."""
    found: dict[str, list[int]] = {}
    for pattern in patterns:
        for file in sorted(path.glob(pattern)):
            state = file.stat()
            found[str(file.relative_to(path))] = [state.st_size, state.st_mtime_ns]
    return found
