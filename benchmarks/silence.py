"""What silence costs a model, and what it writes where nobody speaks.

    python benchmarks/silence.py [--model freevoices] [--clips 100] [--minutes 10]

Test recordings of freevoices, evenly of all languages, are recognised alone and with 0.5, 1 and 4 s of zeros or of
faint noise (-60 dBFS) before, behind or inside (where they are quietest in the middle); CER is over all of them. Then
come minutes of digital silence, noises and tones, and synthetic chords that change every half second, in which every
letter is a false alarm. The peer is the model itself without voice activity detection.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ROOT, common_options, print_head, print_row, ratio_line

import masr
from masr.corpora import freevoices
from masr.data.features import SAMPLING_RATE, load_audio
from masr.recognize.speech import quietest
from masr.score.errors import Utterance, macro_average

SECONDS = (0.5, 1.0, 4.0)
CHORDS = ((262, 330, 392), (220, 262, 330), (175, 220, 262), (196, 247, 294))
"""Hz: C, a minor, F, G."""
Clip = tuple[str, str, np.ndarray]
"""Language, text, samples."""


def clips(corpus: Path, number: int) -> list[Clip]:
    """The first test recordings of each language, as many of each."""
    cuts: dict[str, list[Any]] = {}
    for cut in freevoices.read(corpus)["test"]:
        cuts.setdefault(cut.supervisions[0].language, []).append(cut)
    each = -(-number // len(cuts))
    chosen = [cut for of_language in cuts.values() for cut in of_language[:each]]
    return [(cut.supervisions[0].language, cut.supervisions[0].text, load_audio(cut)) for cut in chosen]


def conditions() -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Names of what is done to a clip, and the functions that do it."""
    random = np.random.default_rng(1)
    yield "alone", lambda samples: samples
    for kind in ("zeros", "noise"):
        for seconds in SECONDS:
            gap = np.zeros(round(seconds * SAMPLING_RATE), np.float32)
            if kind == "noise":
                gap = random.normal(0, 1e-3, len(gap)).astype(np.float32)
            yield f"{seconds:g} s of {kind} before", lambda samples, gap=gap: np.concatenate((gap, samples))
            yield f"{seconds:g} s of {kind} behind", lambda samples, gap=gap: np.concatenate((samples, gap))
            yield f"{seconds:g} s of {kind} inside", lambda samples, gap=gap: _split(samples, gap)


def _split(samples: np.ndarray, gap: np.ndarray) -> np.ndarray:
    place = quietest(samples[: len(samples) * 3 // 4])
    return np.concatenate((samples[:place], gap, samples[place:]))


def error_rate(recognizer: Any, given: list[Clip], change: Callable[[np.ndarray], np.ndarray]) -> float:
    """Macro CER in % of changed clips."""
    found = recognizer.transcribe([change(samples) for _, _, samples in given])
    utterances = [
        Utterance(str(number), language, text, transcript.text, len(samples) / SAMPLING_RATE, 0.0)
        for number, ((language, text, samples), transcript) in enumerate(zip(given, found, strict=True))
    ]
    return 100 * macro_average(utterances, "cer")


def sounds(minutes: float) -> Iterator[tuple[str, np.ndarray]]:
    """Recordings in which nobody speaks."""
    size, random = round(60 * minutes * SAMPLING_RATE), np.random.default_rng(2)
    white = random.normal(0, 1, size).astype(np.float32)
    time = np.arange(size) / SAMPLING_RATE
    yield "digital silence", np.zeros(size, np.float32)
    yield "faint white noise", 1e-3 * white
    yield "loud white noise", 0.1 * white
    spectrum = np.fft.rfft(white)
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLING_RATE), 20)
    for name, power in (("pink noise", 0.5), ("brown noise", 1.0)):
        coloured = np.fft.irfft(spectrum / frequencies**power, size)
        yield name, (0.05 * coloured / coloured.std()).astype(np.float32)
    yield "hum of 50 Hz", (0.1 * np.sin(2 * np.pi * 50 * time) + 0.05 * np.sin(2 * np.pi * 150 * time)).astype("f4")
    steps = 100 * 2 ** (np.floor(time) % 24 / 6)
    yield "tones, one a second", (0.2 * np.sin(2 * np.pi * np.cumsum(steps) / SAMPLING_RATE)).astype(np.float32)
    yield "chords", _music(time)


def _music(time: np.ndarray) -> np.ndarray:
    """Plucked chords of three notes with four harmonics, two a second."""
    beat = np.floor(2 * time).astype(int)
    decay = np.exp(-4 * (2 * time - beat))
    total = np.zeros(len(time))
    for number, chord in enumerate(CHORDS):
        sounding = (beat // 4 % len(CHORDS) == number) * decay
        for note in chord:
            for harmonic in range(1, 5):
                total += sounding * np.sin(2 * np.pi * note * harmonic * time) / harmonic
    return (0.05 * total).astype(np.float32)


def main() -> None:
    parser = common_options(__doc__ or "", repeats=1)
    parser.add_argument("--model", default="freevoices")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    if options.shortest:
        options.clips, options.minutes = 11, 0.05
    torch.set_num_threads(options.threads)
    given = clips(ROOT / "egs/freevoices/corpus", options.clips)
    with_detection, without = masr.load(options.model), masr.load(options.model, segments={"voice_activity": False})
    print(f"{len(given)} clips, {options.model}")
    print_head(["condition", "CER %", "times alone", "without detection: CER %", "times alone"])
    alone: tuple[float, float] | None = None
    ratios: dict[str, float] = {}
    for name, change in conditions():
        rates = error_rate(with_detection, given, change), error_rate(without, given, change)
        alone = alone or rates
        ratios[name] = rates[0] / alone[0]
        print_row([name, f"{rates[0]:.2f}", f"{ratios[name]:.3f}", f"{rates[1]:.2f}", f"{rates[1] / alone[1]:.3f}"])
    print_head([f"{options.minutes:g} minutes", "segments", "letters", "without detection: letters"])
    for name, samples in sounds(options.minutes):
        found, plain = with_detection.transcribe(samples), without.transcribe(samples)
        print_row([name, len(found.segments), len(found.text), len(plain.text)])
    print(ratio_line("silence", "clips-alone", max(ratios.values()), 1.0))


if __name__ == "__main__":
    main()
