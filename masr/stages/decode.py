"""Stage 4: recognises the test splits with every method of the config; one forward pass serves all methods."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lhotse.cut import Cut

from masr.config import Config
from masr.data.batches import Batch, CutFeatures, collate, load_usable
from masr.data.rejected import Rejected
from masr.data.sampling import split_by_duration
from masr.decode.hypothesis import Hypothesis
from masr.decode.search import add_times, check_methods, search, timed_words
from masr.files import file_hash, written_beside
from masr.models.recognizer import WEIGHTS, Recognizer, load_model
from masr.progress import say, track
from masr.stages import features
from masr.stages.features import load_cuts
from masr.stages.output import StageOutput
from masr.stages.train import experiment_folder


def run(config: Config, force: bool = False) -> None:
    """Writes ``exp/<name>/decode/<method>/<split>.jsonl``, one line an utterance."""
    folder = experiment_folder(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(folder, device)
    check_methods(config.decode.methods, model)
    inputs = {
        "weights": file_hash(folder / WEIGHTS), "decode": config.decode.model_dump(),
        "features": features.require(config), "splits": config.corpus.test,
    }  # fmt: skip
    output = StageOutput("decode", folder / "decode", inputs)
    if not output.begin(force):
        return
    for split in config.corpus.test:
        _decode_split(split, model, config, output.folder)
    output.seal()


@torch.no_grad()
def _decode_split(split: str, model: Recognizer, config: Config, folder: Path) -> None:
    cuts = load_cuts(config, split)
    rejected = Rejected(folder / f"{split}.rejected.tsv")
    lines: dict[str, list[dict]] = {method: [] for method in config.decode.methods}
    batches = _batches(cuts, model, config.decode.batch_seconds, rejected)
    total = sum(cut.duration for cut in cuts)
    for batch_cuts, batch in track(batches, f"decode: {split}", total, lambda b: sum(c.duration for c in b[0]), "s"):
        for method, rows in _decode_batch(batch_cuts, batch, model, config).items():
            lines[method] += rows
    rejected.finish(f"decode: {split}", len(cuts), config.data.max_bad_fraction)
    if len(rejected.reasons) == len(cuts):
        raise ValueError(f"decode: no recording of {split} can be used; reasons in {rejected.path}")
    for method, rows in lines.items():
        _write_lines(sorted(rows, key=lambda row: row["id"]), folder / method / f"{split}.jsonl")
        seconds, audio = sum(row["seconds"] for row in rows), sum(row["duration"] for row in rows)
        say(f"decode: {split}: {method}: {len(rows)} utterances at real-time factor {seconds / audio:.4f}")


def _batches(
    cuts: list[Cut], model: Recognizer, seconds: float, rejected: Rejected
) -> Iterator[tuple[list[Cut], Batch]]:
    load = CutFeatures(model.config.features.mel_bins)
    for part in split_by_duration(cuts, seconds):
        found, usable = load_usable(part, load, rejected.reasons)
        if usable:
            yield usable, collate(found, usable, model.tokenizer).to(model.feature_mean.device)


def _decode_batch(cuts: list[Cut], batch: Batch, model: Recognizer, config: Config) -> dict[str, list[dict]]:
    """Lines of every method; an utterance's seconds are its share, by duration, of encoder and search."""
    began = _now()
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    encoding = _now() - began
    log_probs, lengths = model.ctc.log_probs(encoded.frames, encoded.lengths)
    total = sum(cut.duration for cut in cuts)
    rows: dict[str, list[dict]] = {}
    for method in config.decode.methods:
        began = _now()
        found = search(method, encoded, model, config.decode)
        rate = (encoding + _now() - began) / total
        for row, hypotheses in enumerate(found):
            add_times(hypotheses[0], log_probs[row, : lengths[row]], model)
        languages = model.predict_languages(encoded, found, batch.allowed_languages)
        rows[method] = [
            _line(cut, nbest, language, rate * cut.duration, timed_words(nbest[0], model))
            for cut, nbest, language in zip(cuts, found, languages, strict=True)
        ]
    return rows


def _now() -> float:
    """Seconds, after all that a GPU was given to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _line(
    cut: Cut, nbest: list[Hypothesis], language: str | None, seconds: float, words: list[tuple[str, float, float]]
) -> dict:
    return {
        "id": cut.id, "language": cut.supervisions[0].language, "reference": cut.supervisions[0].text,
        "hypothesis": nbest[0].text, "predicted_language": language, "score": nbest[0].score,
        "nbest": [{"text": h.text, "score": h.score, "parts": h.parts} for h in nbest],
        "words": [(word, round(start, 2), round(end, 2)) for word, start, end in words],
        "seconds": round(seconds, 6), "duration": round(cut.duration, 4),
    }  # fmt: skip


def _write_lines(rows: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as partial:
        partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
