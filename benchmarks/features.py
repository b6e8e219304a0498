"""masr's log-mel features (lhotse's, in torch) beside kaldi-native-fbank (C++) on recordings of egs/freevoices.

    python benchmarks/features.py [--limit 20] [--threads 1]

Both get the same samples, one recording after the other, and make the same features: 80 bins from 20 Hz to 400 Hz below
Nyquist, 25 ms Povey windows every 10 ms, no dither, frames as many as shifts (snip_edges off). Reading the files is not
counted. The peer runs in one thread and hands its frames over one by one; stacking them to (T, F) is part of its time.
"""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, common_options, print_head, print_row, ratio_line, say_absent, seconds_in_turn

from masr.corpora import freevoices
from masr.data.features import SAMPLING_RATE, KaldiLogMel, load_audio

try:
    import kaldi_native_fbank
except ImportError:
    kaldi_native_fbank = None

PEER = "kaldi-native-fbank"
MEL_BINS = 80


def read_recordings(corpus: Path, split: str, limit: int) -> list[np.ndarray]:
    """Samples (S,) of the first ``limit`` recordings of every language."""
    by_language: dict[str, list] = {}
    for cut in freevoices.read(corpus)[split]:
        by_language.setdefault(cut.supervisions[0].language, []).append(cut)
    return [load_audio(cut) for cuts in by_language.values() for cut in islice(cuts, limit)]


def kaldi_options() -> "kaldi_native_fbank.FbankOptions":
    """What masr's features are made with, in the peer's words."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLING_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = MEL_BINS
    options.mel_opts.high_freq = -400.0
    return options


def kaldi_features(audio: np.ndarray, options: "kaldi_native_fbank.FbankOptions") -> np.ndarray:
    """(S,) -> (T, F)."""
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(SAMPLING_RATE, audio.tolist())  # a list goes in faster than an array
    extractor.input_finished()
    return np.stack([extractor.get_frame(number) for number in range(extractor.num_frames_ready)])


def main() -> None:
    parser = common_options(__doc__, repeats=5)
    parser.add_argument("--corpus", type=Path, default=ROOT / "egs/freevoices/corpus")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=20, help="recordings of each language")
    arguments = parser.parse_args()
    if arguments.shortest:
        arguments.limit, arguments.repeats = 1, 1
    torch.set_num_threads(arguments.threads)
    recordings = read_recordings(arguments.corpus, arguments.split, arguments.limit)
    log_mel = KaldiLogMel(MEL_BINS)
    contenders = {"masr": lambda: [log_mel(audio) for audio in recordings]}
    if kaldi_native_fbank is None or arguments.shortest:
        say_absent(PEER, "features")
    else:
        options = kaldi_options()
        print_difference(recordings, log_mel, options)
        contenders[PEER] = lambda: [kaldi_features(audio, options) for audio in recordings]
    seconds = seconds_in_turn(contenders, arguments.repeats)
    total = sum(map(len, recordings)) / SAMPLING_RATE
    print_head(["features", "threads", "recordings", "audio, s", "seconds", "x real time"])
    for name, taken in seconds.items():
        threads = arguments.threads if name == "masr" else 1
        print_row([name, threads, len(recordings), f"{total:.0f}", f"{taken:.3f}", f"{total / taken:.0f}"])
    if PEER in seconds:
        print(ratio_line("log-mel", PEER, seconds["masr"], seconds[PEER]))


def print_difference(
    recordings: list[np.ndarray], log_mel: KaldiLogMel, options: "kaldi_native_fbank.FbankOptions"
) -> None:
    """How far the two are apart; ValueError where they are not even of one shape."""
    differences = []
    for audio in recordings:
        ours, theirs = log_mel(audio), kaldi_features(audio, options)
        if ours.shape != theirs.shape:
            raise ValueError(f"features of {len(audio)} samples: masr {ours.shape}, {PEER} {theirs.shape}")
        differences.append(np.abs(ours - theirs))
    mean = np.concatenate(differences).mean()
    print(f"largest absolute difference {max(map(np.max, differences)):.2g} nats, mean {mean:.1g}")


if __name__ == "__main__":
    main()
