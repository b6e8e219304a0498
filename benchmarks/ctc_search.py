"""masr's CTC prefix beam search beside pyctcdecode 0.5.0 and flashlight-text 0.0.7, without a language model.

    python3.11 -m venv .venv-pyctcdecode
    .venv-pyctcdecode/bin/pip install -r benchmarks/requirements-pyctcdecode.txt
    python benchmarks/ctc_search.py

All decode the same log-probabilities with one thread, one utterance after the other, in turn, ``--repeats`` times; the
table has the median seconds. The log-probabilities are the shipped model's on freevoices test recordings, and synthetic
ones over more tokens, as peaky as a well-trained model's.

Shapes: T frames, V vocabulary.
"""

import argparse
import itertools
import json
import os
import statistics
import string
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import common_options, say_absent

from masr.corpora import freevoices
from masr.data.features import load_audio, log_mel_of
from masr.decode.prefix_beam import DEFAULT_PRUNING, Pruning, ctc_prefix_beam
from masr.models.folder import load_model

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent / "egs/freevoices"
WIDE = 300
"""Beam, without pruning, that finds what all of them look for."""
PEERS_PYTHON = HERE.parent / ".venv-pyctcdecode" / "bin" / "python"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def synthetic(vocabulary_size: int, utterances: int = 20, frames: int = 250) -> tuple[list[np.ndarray], list[str]]:
    """Log-probabilities (T, V) of ``utterances`` and the pieces.

    About two frames in three are all blank; tokens last one to three frames; one token frame in seven is doubtful.
    """
    random = np.random.default_rng(vocabulary_size)
    log_probs = []
    for _ in range(utterances):
        logits = random.normal(size=(frames, vocabulary_size))
        logits[:, 0] += 12
        frame = 2
        while frame < frames - 4:
            token, duration = int(random.integers(1, vocabulary_size)), int(random.integers(1, 4))
            for spoken in range(frame, frame + duration):
                logits[spoken, 0] -= random.uniform(4, 14)
                logits[spoken, token] += random.uniform(6, 13)
                if random.random() < 1 / 7:
                    logits[spoken, random.integers(1, vocabulary_size)] += random.uniform(6, 11)
            frame += duration + int(random.integers(1, 7))
        log_probs.append((logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32))
    syllables = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=2)]
    pieces = [("▁" if number % 3 == 0 else "") + syllables[number] for number in range(vocabulary_size - 1)]
    return log_probs, ["<blank>", *pieces]


@torch.no_grad()
def recognised(every: int = 10) -> tuple[list[np.ndarray], list[str], float]:
    """Log-probabilities (T, V) that the shipped model gives one in ``every`` freevoices test recordings, the pieces,
    and the seconds of a frame."""
    model = load_model(RECIPE / "model")
    log_mel, found = log_mel_of(model.config.features), []
    for cut in freevoices.read(RECIPE / "corpus")["test"][::every]:
        features = torch.from_numpy(log_mel(load_audio(cut)))
        encoded = model.encode(features[None], torch.tensor([len(features)]))
        found.append(model.ctc.log_probs(encoded.frames, encoded.lengths)[0][0].numpy())
    return found, model.tokenizer.pieces, model.frame_seconds


def masr_search(pieces: list[str], beam: int, prune: Pruning | None) -> Callable[[np.ndarray], str]:
    def search(log_probs: np.ndarray) -> str:
        (best,) = ctc_prefix_beam(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]), beam, prune=prune)[
            0
        ]
        return "".join(pieces[token] for token in best.tokens).replace("▁", " ").strip()

    return search


def measure(search: Callable[[np.ndarray], str], log_probs: list[np.ndarray]) -> dict[str, object]:
    """As ``ctc_search_peers.measure``: seconds for all, and the texts."""
    search(log_probs[0])
    start = time.perf_counter()
    texts = [search(one) for one in log_probs]
    return {"seconds": time.perf_counter() - start, "texts": texts}


def measure_peers(python: Path, log_probs: list[np.ndarray], pieces: list[str], beam: int) -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as folder:
        arrays, results = Path(folder, "log_probs.npz"), Path(folder, "results.json")
        named = {f"log_probs_{number}": one for number, one in enumerate(log_probs)}
        np.savez(arrays, allow_pickle=False, pieces=np.array(pieces), **named)
        command = [str(python), str(HERE / "ctc_search_peers.py"), str(arrays), str(results), "--beam", str(beam)]
        subprocess.run(command, check=True, env=os.environ | ONE_THREAD)
        return json.loads(results.read_text())


def compare(
    what: str, log_probs: list[np.ndarray], pieces: list[str], frame_seconds: float, options: argparse.Namespace
) -> list[str]:
    """Print the rows of one set of log-probabilities; its ``ratio`` lines are returned."""
    masr = masr_search(pieces, options.beam, DEFAULT_PRUNING)
    passes = []
    for _ in range(options.repeats):
        found = {"masr": measure(masr, log_probs)}
        if options.with_peers:
            found |= measure_peers(options.peers_python, log_probs, pieces, options.beam)
        passes.append(found)
    seconds = {name: statistics.median(one[name]["seconds"] for one in passes) for name in passes[0]}
    unpruned = measure(masr_search(pieces, options.beam, None), log_probs)
    seconds["masr, no pruning"] = unpruned["seconds"]
    texts = {name: result["texts"] for name, result in passes[0].items()} | {"masr, no pruning": unpruned["texts"]}
    wide = measure(masr_search(pieces, WIDE, None), log_probs)["texts"]
    audio = sum(map(len, log_probs)) * frame_seconds
    for name, taken in seconds.items():
        same = statistics.mean(a == b for a, b in zip(texts[name], wide, strict=True))
        print(f"| {what} | {len(pieces)} | {audio:.0f} | {name} | {taken:.3f} | {taken / audio:.5f} | {same:.1%} |")
    peers = [name for name in passes[0] if name != "masr"]
    return [f"ratio {what} {peer} {seconds[peer] / seconds['masr']:.2f}" for peer in peers]


def main() -> None:
    parser = common_options(__doc__, repeats=3)
    parser.add_argument("--beam", type=int, default=10)
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    options = parser.parse_args()
    if options.threads != 1:
        parser.error("--threads: a search has one")
    options.with_peers, every, utterances = options.peers_python.exists(), 10, 20
    if options.shortest:
        options.with_peers, options.repeats, every, utterances = False, 1, 400, 1
    if not options.with_peers:
        say_absent("pyctcdecode and flashlight-text", "ctc_search")
    torch.set_num_threads(1)
    sets = {"ctc-prefix-beam": recognised(every), "ctc-prefix-beam-synthetic-V500": (*synthetic(500, utterances), 0.04)}
    print("| what | V | audio, s | search | seconds | real-time factor | 1-best as beam 300 |")
    print("|---|---|---|---|---|---|---|")
    ratios = [line for what, given in sets.items() for line in compare(what, *given, options)]
    print("\n".join(ratios))


if __name__ == "__main__":
    main()
