"""Stage 1: log-mel features of every recording (and of its speed-perturbed copies), and their statistics."""

import json
import multiprocessing
import shutil
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Features, LilcomChunkyWriter
from lhotse.cut import Cut

from masr.config import Config
from masr.config import Features as FeatureOptions
from masr.corpora import check_cut
from masr.data.features import (
    FRAME_SHIFT,
    SAMPLING_RATE,
    Statistics,
    UnusableAudio,
    change_speed,
    load_audio,
    log_mel_of,
)
from masr.data.rejected import Rejected
from masr.data.sampling import recording_name
from masr.data.stored_features import add_checksums
from masr.errors import starting_processes
from masr.files import reading, write_whole, writing
from masr.processes import end_with_parent
from masr.progress import say, track
from masr.stages import prepare
from masr.stages.output import SEAL, StageOutput, content_of, digest
from masr.stages.prepare import all_splits, manifests, read_cuts

CUTS = "cuts.jsonl.gz"
"""In the folder of a split."""
CUTS_PER_TASK = 50
STATISTICS_SAMPLE = 2000  # recordings that are enough for mean and variance when features are not stored


def feature_folder(config: Config) -> Path:
    """Folder of the features and their statistics."""
    options, name = config.features, "statistics" if config.features.on_the_fly else "fbank"
    return Path(config.data_dir) / (name if options.kind == "kaldi" else f"{name}-{options.kind}{options.mel_bins}")


def run(config: Config, force: bool = False, verify: bool = False) -> None:
    """Writes ``<split>/`` for every split, with ``statistics.json`` of the training split in it.

    With ``features.on_the_fly`` only the statistics are computed, from a sample of the training recordings. A split is
    extracted again when its audio has changed; where that lies, and what is said in it, do not matter.
    """
    splits = [config.corpus.train] if config.features.on_the_fly else all_splits(config)
    outputs = {split: _output(config, split) for split in splits}
    todo = {split: output for split, output in outputs.items() if force or not output.is_complete(verify)}
    if not todo:
        say(f"features: complete in {feature_folder(config)} (--force redoes it)")
        return
    _forget_first_layout(feature_folder(config))
    total = sum(int(prepare.require(config, split)["recordings"]) for split in splits)
    with ProcessPoolExecutor(config.features.jobs, multiprocessing.get_context("spawn"), _start_worker) as pool:
        for split, output in todo.items():
            with output.writing(force, verify=verify) as needed:
                if needed:
                    with writing(output.folder):
                        _write(split, output.folder, total, config, pool)


def _write(split: str, folder: Path, total: int, config: Config, pool: Executor) -> None:
    """Extracts a split; errors when none of it can be used, or too much of the ``total`` of recordings cannot."""
    rejected = Rejected(folder / "rejected.tsv")
    done = _extract(read_cuts(manifests(config), split), split, folder, config, rejected, pool)
    if not config.features.on_the_fly:
        with writing(folder / CUTS):
            CutSet.from_cuts(done).to_file(folder / CUTS)
    rejected.finish(f"features: {split}", total, config.data.max_bad_fraction)
    if not done:
        raise ValueError(f"features: no recording of {split} can be used; reasons in {rejected.path}")


def _forget_first_layout(folder: Path) -> None:
    """Clears what masr 0.1 stored, which had one seal for all splits."""
    if (folder / SEAL).is_file():
        say(f"features: {folder} is of an older masr and is made again")
        shutil.rmtree(folder)


def _output(config: Config, split: str) -> StageOutput:
    """The folder of a split."""
    audio = prepare.require(config, split)["audio"]
    output = StageOutput("features", feature_folder(config) / split, options(config, split), {"audio": audio})
    output.content = {"audio": audio, **output.options}
    return output


def options(config: Config, split: str) -> dict[str, Any]:
    """What of a config decides the features of a split."""
    chosen = config.features.model_dump(exclude={"jobs", "speed_perturbation"})
    if config.features.kind == "kaldi":
        del chosen["kind"]
    return {"features": chosen | {"speed_perturbation": _speeds(config, split)}}


def require(config: Config, split: str) -> str:
    """Hash of the features and texts of a split; an error when they are missing or were made with other options."""
    prepared = prepare.require(config, split)
    if config.features.on_the_fly and split != config.corpus.train:
        return digest(prepared | options(config, split))
    content = content_of(feature_folder(config) / split, "features", options(config, split))
    if content["audio"] != prepared["audio"]:
        raise ValueError(
            f"{feature_folder(config) / split} is of other audio than {manifests(config)} has now: run `masr features` "
            "(or ./run.sh from that stage)"
        )
    return digest(content | {"texts": prepared["texts"]})


def load_statistics(config: Config) -> Statistics:
    """Statistics of the training features, as stage 1 wrote them."""
    require(config, config.corpus.train)
    path = feature_folder(config) / config.corpus.train / "statistics.json"
    with reading(path, "`masr features --force` makes it again"):
        return Statistics.from_dict(json.loads(path.read_text()))


def load_cuts(config: Config, split: str) -> list[Cut]:
    """Cuts of a split with stored features, or with audio when features are computed on the fly."""
    prepared = read_cuts(manifests(config), split)
    if config.features.on_the_fly:
        return [at_speed(cut, speed) for cut in prepared for speed in _speeds(config, split)]
    require(config, split)
    folder, by_name = feature_folder(config) / split, {cut.id: cut for cut in prepared}
    with reading(folder / CUTS, "`masr features --force` makes it again"):
        stored = [_as_prepared(cut, by_name[recording_name(cut)], folder) for cut in CutSet.from_file(folder / CUTS)]
        for cut in stored:
            check_cut(cut)
    return stored


def _as_prepared(stored: Cut, prepared: Cut, folder: Path) -> Cut:
    """A cut with its features as they lie in ``folder``, and all else as stage 0 has it now."""
    ours, theirs = stored.supervisions[0], prepared.supervisions[0]
    ours.text, ours.language, ours.speaker, ours.custom = theirs.text, theirs.language, theirs.speaker, theirs.custom
    stored.recording.sources = prepared.recording.sources
    stored.features.storage_path = str(folder / Path(stored.features.storage_path).name)
    return stored


def at_speed(cut: Cut, speed: float) -> Cut:
    """The cut played ``speed`` times as fast; its id then ends in ``_sp<speed>``."""
    return cut if speed == 1.0 else cut.perturb_speed(speed)


def _speeds(config: Config, split: str) -> list[float]:
    return config.features.speed_perturbation if split == config.corpus.train else [1.0]


def _extract(
    cuts: list[Cut], split: str, folder: Path, config: Config, rejected: Rejected, pool: Executor
) -> list[Cut]:
    """Cuts with features, in order; adds to ``rejected`` and, for the training split, writes the statistics."""
    if config.features.on_the_fly:
        cuts = cuts[:: max(1, len(cuts) // STATISTICS_SAMPLE)]
    store = None if config.features.on_the_fly else folder
    speeds = _speeds(config, split)
    parts = [cuts[i : i + CUTS_PER_TASK] for i in range(0, len(cuts), CUTS_PER_TASK)]
    tasks = [(part, speeds, store / f"{i:05}" if store else None, config.features) for i, part in enumerate(parts)]
    done, statistics = [], Statistics.empty(config.features.mel_bins)
    seconds = sum(cut.duration / speed for cut in cuts for speed in speeds)
    with starting_processes():
        each = pool.map(_extract_task, tasks)
    results = track(each, f"features: {split}", seconds, _seconds_of, "s")
    for good, bad, part_statistics in results:
        done += good
        statistics += part_statistics
        for utterance, reason in bad.items():
            rejected.add(utterance, reason)
    if split == config.corpus.train:
        write_whole(folder / "statistics.json", json.dumps(statistics.to_dict()))
    say(f"features: {split}: {len(done)} recordings, {sum(cut.duration for cut in done) / 3600:.2f} h")
    return done


Task = tuple[list[Cut], list[float], Path | None, FeatureOptions]
Result = tuple[list[Cut], dict[str, str], Statistics]


def _seconds_of(result: Result) -> float:
    return sum(cut.duration for cut in result[0])


def _start_worker() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def _extract_task(task: Task) -> Result:
    """Features of some cuts at every speed, in one lilcom file: (cuts with features, rejected ids, statistics)."""
    cuts, speeds, store, options = task
    log_mel, statistics = log_mel_of(options), Statistics.empty(options.mel_bins)
    good: list[Cut] = []
    bad: dict[str, str] = {}
    writer = LilcomChunkyWriter(store) if store else None
    for cut in cuts:
        try:
            audio = load_audio(cut)  # once for all speeds: decoding costs more than everything else here
            features = [log_mel(change_speed(audio, speed)) for speed in speeds]
        except UnusableAudio as error:
            bad[cut.id] = str(error)
            continue
        copies = [at_speed(cut, speed) for speed in speeds]
        for copy, frames in zip(copies, features, strict=True):
            statistics.add(frames)
            good.append(_attach(copy, frames, writer, log_mel.name) if writer else copy)
    if writer:
        writer.close()
        add_checksums(good, Path(writer.storage_path))
    return good, bad, statistics


def _attach(cut: Cut, log_mel_frames: np.ndarray, writer: LilcomChunkyWriter, kind: str) -> Cut:
    """The cut with a pointer to its features, which are stored under its own id."""
    cut.features = Features(
        type=kind, num_frames=len(log_mel_frames), num_features=log_mel_frames.shape[1], frame_shift=FRAME_SHIFT,
        sampling_rate=SAMPLING_RATE, start=cut.start, duration=cut.duration, storage_type=writer.name,
        storage_path=str(writer.storage_path), storage_key=writer.write(cut.id, log_mel_frames),
        recording_id=cut.recording_id, channels=0,
    )  # fmt: skip
    return cut
