"""masr's log-mel features (lhotse's, in torch) beside kaldi-native-fbank (C++) on recordings of egs/freevoices.

    python benchmarks/features.py [--limit 20] [--threads 1]

Both get the same samples, one recording after the other, and make the same features: 80 bins from 20 Hz to 400 Hz below
Nyquist, 25 ms Povey windows every 10 ms, no dither, frames as many as shifts (snip_edges off). Reading the files is not
counted. The peer runs in one thread and hands its frames over one by one; stacking them to (T, F) is part of its time.
"""

import argparse
from itertools import islice
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import torch
from measure import ROOT, print_head, print_row, ratio_line, seconds_in_turn

from masr.corpora import freevoices
from masr.data.features import SAMPLING_RATE, KaldiLogMel, load_audio

MEL_BINS = 80


def read_recordings(corpus: Path, split: str, limit: int) -> list[np.ndarray]:
    """Samples (S,) of the first ``limit`` recordings of every language."""
    by_language: dict[str, list] = {}
    for cut in freevoices.read(corpus)[split]:
        by_language.setdefault(cut.supervisions[0].language, []).append(cut)
    return [load_audio(cut) for cuts in by_language.values() for cut in islice(cuts, limit)]


def kaldi_options() -> kaldi_native_fbank.FbankOptions:
    """What masr's features are made with, in the peer's words."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLING_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = MEL_BINS
    options.mel_opts.high_freq = -400.0
    return options


def kaldi_features(audio: np.ndarray, options: kaldi_native_fbank.FbankOptions) -> np.ndarray:
    """(S,) -> (T, F)."""
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(SAMPLING_RATE, audio.tolist())  # a list goes in faster than an array
    extractor.input_finished()
    return np.stack([extractor.get_frame(number) for number in range(extractor.num_frames_ready)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=ROOT / "egs/freevoices/corpus")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=20, help="recordings of each language")
    parser.add_argument("--threads", type=int, default=1, help="of masr; the peer has one")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recordings = read_recordings(arguments.corpus, arguments.split, arguments.limit)
    log_mel, options = KaldiLogMel(MEL_BINS), kaldi_options()

    differences = []
    for audio in recordings:
        ours, theirs = log_mel(audio), kaldi_features(audio, options)
        if ours.shape != theirs.shape:
            raise ValueError(f"features of {len(audio)} samples: masr {ours.shape}, kaldi-native-fbank {theirs.shape}")
        differences.append(np.abs(ours - theirs))
    seconds = seconds_in_turn(
        {
            "masr": lambda: [log_mel(audio) for audio in recordings],
            "kaldi-native-fbank": lambda: [kaldi_features(audio, options) for audio in recordings],
        },
        arguments.repeats,
    )
    total = sum(map(len, recordings)) / SAMPLING_RATE
    print_head(["features", "threads", "recordings", "audio, s", "seconds", "x real time"])
    for name, taken in seconds.items():
        threads = arguments.threads if name == "masr" else 1
        print_row([name, threads, len(recordings), f"{total:.0f}", f"{taken:.3f}", f"{total / taken:.0f}"])
    mean = np.concatenate(differences).mean()
    print(f"largest absolute difference {max(map(np.max, differences)):.2g} nats, mean {mean:.1g}")
    print(ratio_line("log-mel", "kaldi-native-fbank", seconds["masr"], seconds["kaldi-native-fbank"]))


if __name__ == "__main__":
    main()
