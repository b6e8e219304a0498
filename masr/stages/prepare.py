"""Stage 0: the corpus as published -> validated, normalised CutSets in ``data/manifests``."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut

from masr.config import Config
from masr.corpora import check_cut, corpus_module, problem_of
from masr.data.rejected import Rejected
from masr.files import reading, writing
from masr.progress import say
from masr.stages.output import StageOutput, seal_of
from masr.text.languages import language_name
from masr.text.normalize import VERSION, normalize


def manifests(config: Config) -> Path:
    """Folder of the CutSets."""
    return Path(config.data_dir) / "manifests"


def read_cuts(folder: Path, split: str) -> list[Cut]:
    """Cuts of a split in the output of stage 0 or 1."""
    path = folder / f"{split}.jsonl.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `masr prepare` and `masr features` with these corpus options")
    with reading(path, "`masr prepare --force` and `masr features --force` make them again"):
        cuts = list(CutSet.from_file(path))
        for cut in cuts:
            check_cut(cut)
    return cuts


def all_splits(config: Config) -> list[str]:
    """Training split first; a split is named once, though dev may also be one to decode."""
    return list(dict.fromkeys([config.corpus.train, config.corpus.dev, *config.corpus.test, *_heard(config)]))


def _heard(config: Config) -> list[str]:
    """The split of which only the speech is used, if there is one."""
    options = config.model.self_supervised
    return [options.split] if options.weight and options.split else []


def run(config: Config, force: bool = False) -> None:
    """Writes ``<split>.jsonl.gz`` for every split; unusable recordings are listed in ``rejected.tsv``."""
    corpus = corpus_module(config.corpus.name)
    path = Path(config.corpus.path)
    if not path.is_dir():
        raise FileNotFoundError(f"corpus.path: no folder {path.resolve()}; set corpus.path=... to where the corpus is")
    sources = {str(f): f.stat().st_size for pattern in corpus.SOURCES for f in sorted(path.glob(pattern))}
    times = {str(f): f.stat().st_mtime_ns for f in map(Path, sources)}
    whole = {"minutes"} if not config.corpus.minutes else None
    inputs = {
        "corpus": config.corpus.model_dump(exclude=whole),
        "normalization": VERSION,
        "sizes": sources,
        "times": times,
    }
    if heard := _heard(config):
        inputs["heard"] = heard
    output = StageOutput("prepare", manifests(config), inputs | {"limits": _limits(config)})
    if not output.begin(force):
        return
    splits = corpus.read(path, config.corpus.languages)
    wanted = all_splits(config)
    if missing := [split for split in wanted if not splits.get(split)]:
        raise ValueError(f"{path}: no recordings for {', '.join(missing)}; splits found: {', '.join(splits) or 'none'}")
    rejected = Rejected(output.folder / "rejected.tsv")
    scored = {config.corpus.train, config.corpus.dev, *config.corpus.test}
    usable = {split: list(_usable(splits[split], config, rejected, split not in scored)) for split in wanted}
    if config.corpus.minutes:
        usable[config.corpus.train] = _draw(usable[config.corpus.train], config.corpus.minutes)
    for split, cuts in usable.items():
        with writing(output.folder / f"{split}.jsonl.gz"):
            CutSet.from_cuts(cuts).to_file(output.folder / f"{split}.jsonl.gz")
    rejected.finish("prepare", sum(len(splits[split]) for split in wanted), config.data.max_bad_fraction)
    _check(usable, config, rejected.path)
    for split in wanted:
        say(f"prepare: {split}: {describe(usable[split])}")
    output.seal()


def describe(cuts: Iterable[Cut]) -> str:
    """Minutes by language, e.g. ``Czech 78.2 min, Dutch 73.3 min``."""
    seconds: Counter[str] = Counter()
    for cut in cuts:
        seconds[cut.supervisions[0].language] += cut.duration
    return ", ".join(f"{language_name(code)} {total / 60:.1f} min" for code, total in seconds.most_common())


def _check(usable: dict[str, list[Cut]], config: Config, reasons: Path) -> None:
    """ValueError when a split or a language of the config has no recordings, or only dev has some of a language."""
    if empty := [split for split, cuts in usable.items() if not cuts]:
        raise ValueError(f"prepare: no recording of {', '.join(empty)} can be used; reasons in {reasons}")
    languages = {split: {cut.supervisions[0].language for cut in cuts} for split, cuts in usable.items()}
    if missing := set(config.corpus.languages).difference(*languages.values()):
        raise ValueError(f"corpus.languages: {config.corpus.path} has no recordings in {', '.join(sorted(missing))}")
    train, dev = languages[config.corpus.train], languages[config.corpus.dev]
    if unknown := ", ".join(sorted(dev - train)):
        raise ValueError(
            f"prepare: {config.corpus.dev} has recordings in {unknown}, {config.corpus.train} has none; "
            f"set corpus.languages=[{','.join(sorted(train))}]"
        )


def _draw(cuts: list[Cut], minutes: float) -> list[Cut]:
    """So many minutes of each language, and what is left of the last recording; fewer minutes are a part of these."""
    drawn: set[str] = set()
    for code in sorted({cut.supervisions[0].language for cut in cuts}):
        ours = sorted((cut for cut in cuts if cut.supervisions[0].language == code), key=lambda cut: cut.id)
        order = np.random.default_rng(0).permutation(len(ours))
        starts = np.cumsum([0.0, *(ours[i].duration for i in order)])
        drawn |= {ours[i].id for i, start in zip(order, starts, strict=False) if start < 60 * minutes}
    return [cut for cut in cuts if cut.id in drawn]


def _limits(config: Config) -> list[float]:
    return [config.data.min_seconds, config.data.max_bad_fraction]


def require(config: Config) -> str:
    """Hash of the complete output of this stage; an error when it is missing or holds other recordings or texts."""
    corpus = config.corpus.model_dump(include={"name", "languages", "train", "minutes"})
    return seal_of(manifests(config), "prepare", {"corpus": corpus, "normalization": VERSION})


def _usable(cuts: list[Cut], config: Config, rejected: Rejected, heard_only: bool):
    """Cuts with normalised text, which only speech that is ``heard_only`` may lack; others are rejected with a
    reason."""
    seen: set[str] = set()
    for cut in cuts:
        supervision = cut.supervisions[0]
        text = normalize(supervision.text or "", supervision.language)
        if problem := _problem(cut, text, seen, config, heard_only):
            rejected.add(cut.id, problem)
            continue
        seen.add(cut.id)
        supervision.custom = {**(supervision.custom or {}), "published_text": supervision.text}
        supervision.text = text
        yield cut


def _problem(cut: Cut, text: str, seen: set[str], config: Config, heard_only: bool) -> str | None:
    if problem := problem_of(cut):
        return problem
    if not text and not heard_only:
        return f"empty transcript (as published: {cut.supervisions[0].text!r})"
    if not cut.recording.num_samples:
        return f"{cut.recording.sources[0].source} cannot be read, or is empty"
    if cut.id in seen:
        return "a second recording with this id"
    if cut.duration < config.data.min_seconds:
        return f"{cut.duration:.3f} s is shorter than data.min_seconds={config.data.min_seconds:g}"
    if cut.end > cut.recording.duration + 0.05:
        return f"ends at {cut.end:.2f} s, but its recording has {cut.recording.duration:.2f} s"
    return None
