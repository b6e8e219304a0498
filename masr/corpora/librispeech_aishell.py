"""English LibriSpeech and Mandarin AISHELL-1 together, as in Objective Soups (Saif et al. 2025, arXiv 2508.09228).

``corpus.path`` is the folder that holds ``LibriSpeech`` and ``data_aishell``. A tenth of LibriSpeech is transcribed
speech, the rest is for ``model.self_supervised``, which does not look at its text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from masr.corpora import Split, aishell, join, librispeech

SOURCES = (*librispeech.SOURCES, *aishell.SOURCES)
READERS = {"en": librispeech.read, "zh": aishell.read}
SPLITS: dict[str, dict[str, list[str]]] = {
    "train": {"en": ["train-clean-100"], "zh": ["train"]},
    "unlabelled": {"en": ["train-clean-360", "train-other-500"]},
    "dev": {"en": ["dev-clean"], "zh": ["dev"]},
    "test-clean": {"en": ["test-clean"]},
    "test-other": {"en": ["test-other"]},
    "test-aishell": {"zh": ["test"]},
}
"""What of each corpus a split is made of."""


def read(path: Path, languages: Sequence[str] = ()) -> dict[str, Split]:
    """Cuts by split, each read when it is asked for; of one of the languages the splits that have it."""
    if unknown := [code for code in languages if code not in READERS]:
        raise ValueError(f"corpus.languages: there is no {', '.join(unknown)} here, but {', '.join(READERS)}")
    corpora = {code: READERS[code](path) for code in languages or READERS}
    splits = {name: _parts(sources, corpora) for name, sources in SPLITS.items()}
    return {name: join(name, parts) for name, parts in splits.items() if parts}


def _parts(sources: Mapping[str, Sequence[str]], corpora: Mapping[str, Mapping[str, Split]]) -> list[Split]:
    return [corpora[code][part] for code, parts in sources.items() if code in corpora for part in parts]
