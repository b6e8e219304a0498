"""The yardstick of egs/freevoices: zero-shot Whisper-base (OpenAI's weights, int8 on CPU) that is told the language.

    python3.11 -m venv .venv-peers && .venv-peers/bin/pip install -r benchmarks/requirements-peers.txt
    PYTHONPATH=. .venv-peers/bin/python benchmarks/whisper_base.py --mode greedy

Writes ``<output>/decode/<mode>/<split>.jsonl`` in the format of masr's stage 4, one line a recording, so that masr's
own scorer can score it. A run that was stopped goes on where it was. Modes, as faster-whisper carries them out:

- ``greedy``: one pass with temperature 0 and beam 1, no time stamps, no thresholds: every recording gets a text.
- ``beam``: the same with beam 5.
- ``fallback``: faster-whisper's (and the Whisper command's) defaults. Beam 5 at temperature 0 with time stamps; where
  the text compresses by more than 2.4 or its mean log probability is below -1, sampling (best of 5) at 0.2, 0.4 ... 1;
  a window with a no-speech probability above 0.6 and a log probability below -1 gets no text.

Sampling is seeded once a run, so that only an uninterrupted ``fallback`` run repeats exactly.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import soundfile
from faster_whisper import WhisperModel
from peers import fetch_whisper_base
from rapidfuzz.distance import Levenshtein

from masr.text.normalize import VERSION, normalize

Row = dict[str, Any]

SAMPLE_RATE = 16000
SEED = 0
PLAIN: dict[str, Any] = {
    "temperature": 0.0,
    "condition_on_previous_text": False,
    "without_timestamps": True,
    "compression_ratio_threshold": None,
    "log_prob_threshold": None,
    "no_speech_threshold": None,
}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"beam_size": 1, **PLAIN},
    "beam": {"beam_size": 5, **PLAIN},
    "fallback": {
        "beam_size": 5,
        "best_of": 5,
        "temperature": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        "compression_ratio_threshold": 2.4,
        "log_prob_threshold": -1.0,
        "no_speech_threshold": 0.6,
    },
}


def read_manifest(corpus: Path, split: str) -> list[Row]:
    """Rows of one split, in the manifest's order.

    Raises:
        ValueError: there is no manifest, or it has no recording of this split.
    """
    manifest = corpus / "manifest.jsonl"
    if not manifest.exists():
        raise ValueError(f"{manifest}: not found; name the folder of the freevoices pack with --corpus")
    with open(manifest, encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == split]
    if not rows:
        raise ValueError(f"{manifest}: no recording of split {split!r}; the pack has train, dev and test")
    return rows


def read_audio(corpus: Path, row: Row) -> np.ndarray:
    """Samples (S,) of one recording, mono float32 at 16 kHz."""
    start, frames = round(row["start"] * SAMPLE_RATE), round(row["duration"] * SAMPLE_RATE)
    samples, rate = soundfile.read(corpus / row["audio"], frames=frames, start=start, dtype="float32")
    if rate != SAMPLE_RATE or samples.shape != (frames,):
        found = f"{samples.shape} samples at {rate} Hz"
        raise ValueError(f"{corpus / row['audio']}: {row['id']} is {found}, expected ({frames},) at {SAMPLE_RATE} Hz")
    return samples


def read_decoded(path: Path) -> list[Row]:
    """Rows that an earlier run wrote; a last line that was cut off is removed from the file."""
    if not path.exists():
        return []
    complete = path.read_bytes().rpartition(b"\n")
    if complete[2]:
        path.write_bytes(complete[0] + complete[1])
    return [json.loads(line) for line in complete[0].splitlines()]


def decode(model: WhisperModel, corpus: Path, rows: Iterable[Row], options: dict[str, Any]) -> Iterator[Row]:
    """One row of masr's decode format for each manifest row.

    ``score`` is the mean log probability of a token (None where Whisper gave no text), ``seconds`` the time from
    samples to text.
    """
    for row in rows:
        audio, language = read_audio(corpus, row), row["language"]
        started = time.perf_counter()
        segments = list(model.transcribe(audio, language=language, vad_filter=False, **options)[0])
        seconds = time.perf_counter() - started
        yield {
            "id": row["id"],
            "language": language,
            "reference": normalize(row["text"], language),
            "hypothesis": normalize("".join(segment.text for segment in segments), language),
            "predicted_language": None,
            "score": float(np.mean([segment.avg_logprob for segment in segments])) if segments else None,
            "seconds": round(seconds, 4),
            "duration": row["duration"],
        }


def with_progress(rows: Iterable[Row], total: int, every: int = 20) -> Iterator[Row]:
    """Pass rows on; print the rate and the time left after every 20 of them."""
    started = time.perf_counter()
    for done, row in enumerate(rows, 1):
        yield row
        if done % every == 0 or done == total:
            rate = done / (time.perf_counter() - started)
            left = (total - done) / rate / 60
            print(f"{done}/{total} recordings, {rate:.2f} a second, {left:.1f} min left", flush=True)


def summarise(rows: Iterable[Row]) -> str:
    """Character error rate of each language, their unweighted mean, and the real-time factor."""
    of_language: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_language[row["language"]].append(row)
    lines, rates = [f"CER %, masr text normalisation {VERSION}"], []
    for language, group in sorted(of_language.items()):
        errors = sum(Levenshtein.distance(row["reference"], row["hypothesis"]) for row in group)
        rates.append(100 * errors / sum(len(row["reference"]) for row in group))
        lines.append(f"{language:8}{rates[-1]:8.2f}  {len(group)} recordings")
    everything = [row for group in of_language.values() for row in group]
    factor = sum(row["seconds"] for row in everything) / sum(row["duration"] for row in everything)
    return "\n".join([*lines, f"{'macro':8}{np.mean(rates):8.2f}", f"{'RTF':8}{factor:8.3f}"])


def main() -> None:
    """Decode what is missing, then print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("egs/freevoices/corpus"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--mode", choices=MODES, default="greedy")
    parser.add_argument("--output", type=Path, default=Path("egs/freevoices/exp/whisper-base"))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    arguments = parser.parse_args()
    try:
        rows = read_manifest(arguments.corpus, arguments.split)
    except ValueError as error:
        parser.error(str(error))

    path = arguments.output / "decode" / arguments.mode / f"{arguments.split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    decoded = read_decoded(path)
    there = {row["id"] for row in decoded}
    missing = [row for row in rows if row["id"] not in there]
    print(f"{path}: {len(decoded)} recordings are there, {len(missing)} to do", flush=True)
    if missing:
        ctranslate2.set_random_seed(SEED)
        folder = fetch_whisper_base(Path.home() / ".cache" / "masr")
        model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=arguments.threads)
        with open(path, "a", encoding="utf-8") as file:
            results = decode(model, arguments.corpus, missing, MODES[arguments.mode])
            for result in with_progress(results, len(missing)):
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
                file.flush()
                decoded.append(result)
    print(summarise(decoded))


if __name__ == "__main__":
    main()
