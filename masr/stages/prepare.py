"""Stage 0: the corpus as published -> validated, normalised CutSets in ``data/manifests``."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut

from masr.config import Config
from masr.corpora import Split, check_cut, corpus_module, problem_of, unreadable
from masr.corpora.others import OtherSplit, other_splits, read_others, transcript_states
from masr.corpora.tables import BadRow
from masr.data.contract import contract_problem
from masr.data.leaks import refuse_leaks
from masr.data.recordings import AudioHashes, RecordingList, same_audio, split_content
from masr.data.rejected import Rejected
from masr.files import reading, writing
from masr.progress import say
from masr.stages.output import StageOutput, content_of, digest, read_seal
from masr.text.languages import language_name
from masr.text.normalize import VERSION, normalize

RECORDINGS = "recordings.tsv"
"""The audio files that the manifests are about."""


def manifests(config: Config) -> Path:
    """Folder of the CutSets."""
    return Path(config.data_dir) / "manifests"


def read_cuts(folder: Path, split: str) -> list[Cut]:
    """Cuts of a split in the output of stage 0 or 1."""
    path = folder / f"{split}.jsonl.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `masr prepare` and `masr features` with these corpus options")
    with reading(path, "`masr prepare --force` makes it again"):
        cuts = list(CutSet.from_file(path))
        for cut in cuts:
            check_cut(cut)
    return cuts


def all_splits(config: Config) -> list[str]:
    """Training split first; a split is named once, though dev may also be one to decode."""
    return list(dict.fromkeys([config.corpus.train, config.corpus.dev, *config.corpus.test, *_heard(config)]))


def _heard(config: Config) -> list[str]:
    """The split of which only the speech is used, if there is one."""
    options, corpus = config.model.self_supervised, config.corpus
    if not options.weight or options.split is None or options.split in (corpus.train, corpus.dev, *corpus.test):
        return []
    return [options.split]


def run(config: Config, force: bool = False, verify: bool = False) -> None:
    """Writes ``<split>.jsonl.gz`` for every split; unusable recordings are listed in ``rejected.tsv``.

    With ``verify`` what is there is compared byte by byte, not by size and time.
    """
    corpus = corpus_module(config.corpus.name)
    path = Path(config.corpus.path)
    if not path.is_dir():
        raise FileNotFoundError(f"corpus.path: no folder {path.resolve()}; set corpus.path=... to where the corpus is")
    others = _other_splits(config)
    transcripts = digest(transcript_states(path, corpus.SOURCES))
    output = _output(config, transcripts, _states(others))
    splits = _splits_to_keep(config)
    if not RecordingList.is_up_to_date(output.folder / RECORDINGS) or (verify and not _same_audio(config)):
        output.outdated = "the recordings"
    with output.writing(force, verify=verify) as needed:
        if needed:
            published = _with_others(corpus.read(path, config.corpus.languages), others, config)
            output.content = _write(output.folder, published, config, splits, others)


def _other_splits(config: Config) -> dict[str, OtherSplit]:
    """Splits of other corpora: those of this config and, as long as they are there, those that others have prepared."""
    seal = read_seal(manifests(config)) or {"inputs": {}, "content": {}}
    used = all_splits(config)
    ours = {name: split for name, split in other_splits(config.corpus.also).items() if name in used}
    found: dict[str, OtherSplit] = {}
    for name, state in seal["inputs"].get("also", {}).items():
        split = OtherSplit(state["name"], state["path"], state["split"], state["languages"])
        if name in seal["content"] and name not in used and Path(split.path).is_dir():
            found[name] = split
    return found | ours


def _states(others: Mapping[str, OtherSplit]) -> dict[str, Any]:
    """What decides the splits of other corpora; FileNotFoundError for a corpus that is not there."""
    states: dict[str, Any] = {}
    for name, split in others.items():
        path = Path(split.path)
        if not path.is_dir():
            raise FileNotFoundError(f"corpus.also: no folder {path.resolve()}, which has {name}; set its path")
        transcripts = digest(transcript_states(path, corpus_module(split.name).SOURCES))
        states[name] = {**split.description(), "path": split.path, "transcripts": transcripts}
    return states


def _with_others(published: dict[str, Split], others: Mapping[str, OtherSplit], config: Config) -> dict[str, Any]:
    """The splits of the corpus and those of others; ValueError where two have the same name."""
    if same := [name for name in others if name in published]:
        raise ValueError(
            f"corpus.also: {config.corpus.path} has a split {same[0]} of its own; choose another name in splits"
        )
    return {**published, **read_others(others)}


def _output(config: Config, transcripts: str, others: dict[str, Any]) -> StageOutput:
    """The folder of the manifests, and all that decides what is in them."""
    limits = {"min_seconds": config.data.min_seconds, "max_bad_fraction": config.data.max_bad_fraction}
    inputs = {
        "splits": _splits_to_keep(config),
        "compared": _compared(config),
        "heard": _heard_only(config),
        "transcripts": transcripts,
        "also": others,
        "limits": limits,
        "normalization": VERSION,
    }
    return StageOutput("prepare", manifests(config), _options(config), inputs)


def _options(config: Config) -> dict[str, Any]:
    """What of a config decides the manifests, beside which splits there are."""
    corpus = config.corpus.model_dump(include={"name", "languages", "train", "minutes", "disjoint"})
    return {"corpus": corpus}


def _splits_to_keep(config: Config) -> list[str]:
    """Those of this config and those that others of the same corpus have prepared."""
    seal = read_seal(manifests(config)) or {"content": {}}
    return sorted({*all_splits(config), *seal["content"]})


def _training(config: Config) -> list[str]:
    """Splits that are trained on, with their text or without."""
    return [config.corpus.train, *_heard(config)]


def _compared(config: Config) -> list[list[str]]:
    """Splits between which leaks were looked for: those of this config and those of each that prepared the corpus."""
    seal = read_seal(manifests(config)) or {"inputs": {}}
    others = [split for split in all_splits(config) if split not in _training(config)]
    ours = [*_training(config), "|", *sorted(others)]
    return sorted([ours, *(group for group in seal["inputs"].get("compared", []) if group != ours)])


def _heard_only(config: Config) -> list[str]:
    """Prepared splits whose recordings may lack a text: that of this config, and those of others."""
    seal = read_seal(manifests(config)) or {"inputs": {}}
    scored = {config.corpus.train, config.corpus.dev, *config.corpus.test}
    return sorted({*_heard(config), *seal["inputs"].get("heard", [])} - scored)


def _same_audio(config: Config) -> bool:
    """Whether the audio of all prepared splits is still what it was."""
    seal = read_seal(manifests(config)) or {"content": {}}
    return all(same_audio(read_cuts(manifests(config), split)) for split in seal["content"])


def _write(
    folder: Path,
    published: dict[str, Any],
    config: Config,
    keep: Sequence[str],
    others: Collection[str],
) -> dict[str, Any]:
    """Writes the manifests of the splits in use and of those to ``keep``; what stands for the content of each.

    Of ``others``, the splits of other corpora, those that are not trained on have the languages of training alone.
    """
    wanted = all_splits(config)
    if missing := [split for split in wanted if not published.get(split)]:
        found = ", ".join(published) or "none"
        raise ValueError(f"{config.corpus.path}: no recordings for {', '.join(missing)}; splits found: {found}")
    wanted += [split for split in keep if split not in wanted and published.get(split)]
    rejected, recordings = Rejected(folder / "rejected.tsv"), RecordingList()
    bad_rows: set[str] = set()
    usable: dict[str, list[Cut]] = {}
    for split in wanted:
        heard_only = split in _heard_only(config)
        languages = None
        if split in others and not heard_only and split not in _training(config):
            languages = _languages(usable[config.corpus.train])
        watched = recordings.watch(published[split])
        usable[split] = list(_usable(watched, config, rejected, heard_only, bad_rows, languages))
    total = sum(map(len, usable.values())) + len(rejected)
    if config.corpus.minutes:
        usable[config.corpus.train] = _draw(usable[config.corpus.train], config.corpus.minutes)
    for split, cuts in usable.items():
        with writing(folder / f"{split}.jsonl.gz"):
            CutSet.from_cuts(cuts).to_file(folder / f"{split}.jsonl.gz")
    recordings.write(folder / RECORDINGS)
    rejected.finish("prepare", total, config.data.max_bad_fraction)
    _check(usable, config, rejected.path)
    in_use = {split: usable[split] for split in all_splits(config)}
    refuse_leaks(in_use, _training(config), config.corpus.disjoint)
    for split in wanted:
        say(f"prepare: {split}: {describe(usable[split])}")
    return {split: split_content(cuts) for split, cuts in usable.items()}


def describe(cuts: Iterable[Cut]) -> str:
    """Minutes by language, e.g. ``Czech 78.2 min, Dutch 73.3 min``."""
    seconds: Counter[str] = Counter()
    for cut in cuts:
        seconds[cut.supervisions[0].language] += cut.duration
    return ", ".join(f"{language_name(code)} {total / 60:.1f} min" for code, total in seconds.most_common())


def _check(usable: dict[str, list[Cut]], config: Config, reasons: Path) -> None:
    """ValueError when a split or a language of the config has no recordings, or training has none of a language that
    dev or a split to decode has: no model could be asked for it."""
    if empty := [split for split, cuts in usable.items() if not cuts]:
        others = [split for split in config.corpus.test if split not in empty]
        way_out = ""
        if others and set(empty) <= set(config.corpus.test):
            way_out = f"; corpus.test=[{','.join(others)}] does without"
        raise ValueError(f"prepare: no recording of {', '.join(empty)} can be used; reasons in {reasons}{way_out}")
    languages = {split: _languages(cuts) for split, cuts in usable.items()}
    if missing := set(config.corpus.languages).difference(*languages.values()):
        raise ValueError(f"corpus.languages: {config.corpus.path} has no recordings in {', '.join(sorted(missing))}")
    train = languages[config.corpus.train]
    for split in dict.fromkeys([config.corpus.dev, *config.corpus.test]):
        if languages[split] - train:
            raise ValueError(_only_there(split, languages[split], train, config))


def _languages(cuts: Iterable[Cut]) -> set[str]:
    return {cut.supervisions[0].language for cut in cuts}


def _only_there(split: str, languages: set[str], train: set[str], config: Config) -> str:
    """What to do about a split that has languages which training has not."""
    ways = []
    if languages & train:
        ways.append(f"corpus.languages=[{','.join(sorted(train))}]")
    if split != config.corpus.dev:
        others = [other for other in config.corpus.test if other != split]
        ways.append(f"corpus.test=[{','.join(others or [config.corpus.dev])}] without {split}")
    unknown = ", ".join(sorted(languages - train))
    return (
        f"prepare: {split} has recordings in {unknown}, {config.corpus.train} has none: no model trained on it can "
        f"decode them; set {', or '.join(ways or ['another corpus.dev'])}"
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


def require(config: Config, split: str) -> dict[str, Any]:
    """What stands for the ``audio`` and the ``texts`` of a split in the output of this stage.

    FileNotFoundError when it is missing; ValueError when it was made with other options.
    """
    content = content_of(manifests(config), "prepare", _options(config))
    inputs = (read_seal(manifests(config)) or {"inputs": {}})["inputs"]
    if inputs.get("normalization") != VERSION:
        raise ValueError(
            f"{manifests(config)} has texts of normalisation {inputs.get('normalization')}, this masr has {VERSION}: "
            "run `masr prepare` (or ./run.sh from stage 0)"
        )
    if split not in content:
        raise FileNotFoundError(
            f"{manifests(config)} has no split {split} (it has {', '.join(content)}): run `masr prepare` with these "
            "corpus options"
        )
    if _described(config, split) != _sealed_description(inputs, split):
        raise ValueError(
            f"{manifests(config)} has a split {split} that is not the one of corpus.also: run `masr prepare` (or "
            "./run.sh from stage 0)"
        )
    return content[split]


def _described(config: Config, split: str) -> dict[str, Any] | None:
    """What a split of another corpus is in the config; None for one of the corpus itself."""
    other = other_splits(config.corpus.also).get(split)
    return None if other is None else other.description()


def _sealed_description(inputs: dict[str, Any], split: str) -> dict[str, Any] | None:
    """The same as stage 0 sealed it."""
    state = inputs.get("also", {}).get(split)
    if state is None:
        return None
    return OtherSplit(state["name"], state["path"], state["split"], state["languages"]).description()


def _usable(
    cuts: Iterable[Cut | BadRow],
    config: Config,
    rejected: Rejected,
    heard_only: bool,
    bad_rows: set[str],
    languages: Collection[str] | None = None,
) -> Iterator[Cut]:
    """Cuts with normalised text, which only speech that is ``heard_only`` may lack; others are rejected with a
    reason. Those in other ``languages`` are left out.

    ``bad_rows`` are those of other splits, for one of which nobody knows the split is in all of them.
    """
    seen: set[str] = set()
    hashes = AudioHashes()
    for cut in cuts:
        if isinstance(cut, BadRow):
            if cut.where not in bad_rows:
                rejected.add(cut.where, cut.reason)
                bad_rows.add(cut.where)
            continue
        if problem := contract_problem(cut):
            rejected.add(cut.id, problem)
            continue
        supervision = cut.supervisions[0]
        if languages is not None and supervision.language not in languages:
            rejected.leave_out(cut.id, f"{config.corpus.train} has no recordings in {supervision.language}")
            continue
        text = normalize(supervision.text or "", supervision.language)
        if problem := _problem(cut, text, seen, config, heard_only):
            rejected.add(cut.id, problem)
            continue
        if limit := _outside(cut, config):
            rejected.leave_out(cut.id, limit)
            continue
        seen.add(cut.id)
        cut.custom = (cut.custom or {}) | {"audio_hash": hashes.of(cut)}
        supervision.custom = {**(supervision.custom or {}), "published_text": supervision.text}
        supervision.text = text
        yield cut


def _problem(cut: Cut, text: str, seen: set[str], config: Config, heard_only: bool) -> str | None:
    if problem := problem_of(cut):
        return problem
    if not text and not heard_only:
        return f"empty transcript (as published: {cut.supervisions[0].text!r})"
    if not cut.recording.num_samples:
        return unreadable(cut.recording)
    if cut.id in seen:
        return "a second recording with this id"
    return None


def _outside(cut: Cut, config: Config) -> str | None:
    """The limit that leaves out a cut in which nothing is wrong."""
    if cut.duration < config.data.min_seconds:
        return f"{cut.duration:.3f} s is shorter than data.min_seconds={config.data.min_seconds:g}"
    return None
