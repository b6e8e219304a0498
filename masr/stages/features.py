"""Stage 1: log-mel features of every recording (and of its speed-perturbed copies), and their statistics."""

import json
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Features, LilcomChunkyWriter
from lhotse.cut import Cut

from masr.config import Config
from masr.config import Features as FeatureOptions
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
from masr.errors import starting_processes
from masr.files import reading, write_text, writing
from masr.progress import say, track
from masr.stages.output import StageOutput, seal_of
from masr.stages.prepare import all_splits, manifests, read_cuts
from masr.stages.prepare import require as require_manifests

CUTS_PER_TASK = 50
STATISTICS_SAMPLE = 2000  # recordings that are enough for mean and variance when features are not stored


def feature_folder(config: Config) -> Path:
    """Folder of the features and their statistics."""
    options, name = config.features, "statistics" if config.features.on_the_fly else "fbank"
    return Path(config.data_dir) / (name if options.kind == "kaldi" else f"{name}-{options.kind}{options.mel_bins}")


def run(config: Config, force: bool = False) -> None:
    """Writes ``<split>/`` and ``<split>.jsonl.gz`` for every split, and ``statistics.json`` of the training split.

    With ``features.on_the_fly`` only the statistics are computed, from a sample of the training recordings.
    """
    output = StageOutput(
        "features", feature_folder(config), {"manifests": require_manifests(config), **options(config)}
    )
    if not output.begin(force):
        return
    rejected = Rejected(output.folder / "rejected.tsv")
    splits = all_splits(config)
    total, empty = 0, []
    with (
        ProcessPoolExecutor(config.features.jobs, multiprocessing.get_context("spawn"), _one_thread) as pool,
        writing(output.folder),
    ):
        for split in splits[:1] if config.features.on_the_fly else splits:
            cuts = read_cuts(manifests(config), split)
            total += len(cuts)
            done = _extract(cuts, split, output.folder, config, rejected, pool)
            if not config.features.on_the_fly:
                path = output.folder / f"{split}.jsonl.gz"
                with writing(path):
                    CutSet.from_cuts(done).to_file(path)
            empty += [] if done else [split]
    rejected.finish("features", total, config.data.max_bad_fraction)
    if empty:
        raise ValueError(f"features: no recording of {', '.join(empty)} can be used; reasons in {rejected.path}")
    output.seal()


def options(config: Config) -> dict[str, Any]:
    """What of a config decides the output of this stage."""
    usual = {"kind"} if config.features.kind == "kaldi" else set()
    return {"features": config.features.model_dump(exclude={"jobs", *usual})}


def require(config: Config) -> str:
    """Hash of the complete output of this stage; an error when it is missing or was made with other options."""
    require_manifests(config)
    return seal_of(feature_folder(config), "features", options(config))


def load_statistics(config: Config) -> Statistics:
    """Statistics of the training features, as stage 1 wrote them."""
    require(config)
    path = feature_folder(config) / "statistics.json"
    with reading(path, "`masr features --force` makes it again"):
        return Statistics.from_dict(json.loads(path.read_text()))


def load_cuts(config: Config, split: str) -> list[Cut]:
    """Cuts of a split with stored features, or with audio when features are computed on the fly."""
    if not config.features.on_the_fly:
        return read_cuts(feature_folder(config), split)
    return [at_speed(cut, speed) for cut in read_cuts(manifests(config), split) for speed in _speeds(config, split)]


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
    store = None if config.features.on_the_fly else folder / split
    if store:
        store.mkdir()
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
        write_text(folder / "statistics.json", json.dumps(statistics.to_dict()))
    say(f"features: {split}: {len(done)} recordings, {sum(cut.duration for cut in done) / 3600:.2f} h")
    return done


Task = tuple[list[Cut], list[float], Path | None, FeatureOptions]
Result = tuple[list[Cut], dict[str, str], Statistics]


def _seconds_of(result: Result) -> float:
    return sum(cut.duration for cut in result[0])


def _one_thread() -> None:
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
