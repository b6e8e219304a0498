"""masr's decoding graphs beside flashlight-text's lexicon decoder and pyctcdecode, both with KenLM, one thread.

    python3.11 -m venv .venv-pyctcdecode
    .venv-pyctcdecode/bin/pip install -r benchmarks/requirements-pyctcdecode.txt
    python benchmarks/lattice.py

All decode the same log-probabilities, the shipped model's on freevoices test recordings of one language, with one
lexicon (the words of the training and test texts) and one word bigram model of the training text, each at several
sizes of its beam. The ratios are at equal word error rate: for every decoder the fastest setting that reaches what all
of them reach. Lattices and their 50 best transcripts are timed on the same recordings.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kaldialign import edit_distance
from measure import common_options, say_absent

from masr.config import Lattice
from masr.corpora import freevoices
from masr.data.features import load_audio, log_mel_of
from masr.decode.language_model import estimate
from masr.decode.lattice import kaldi
from masr.decode.lattice.graph import Graph, compose_graph, make_lexicon, word_grammar
from masr.models.folder import load_model
from masr.models.recognizer import Recognizer
from masr.text.normalize import normalize

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent / "egs/freevoices"
PEERS_PYTHON = HERE.parent / ".venv-pyctcdecode" / "bin" / "python"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LM_SCALE = 0.5
ACTIVE_STATES = (50, 100, 200, 400, 800)
Result = dict[str, Any]


@torch.no_grad()
def recognised(model: Recognizer, language: str, limit: int) -> tuple[list[np.ndarray], list[str]]:
    """Log-probabilities (T, V) of test recordings in one language, and what was said."""
    log_mel, found, texts = log_mel_of(model.config.features), [], []
    cuts = [cut for cut in freevoices.read(RECIPE / "corpus")["test"] if cut.supervisions[0].language == language]
    for cut in cuts[:limit]:
        features = torch.from_numpy(log_mel(load_audio(cut)))
        encoded = model.encode(features[None], torch.tensor([len(features)]))
        found.append(model.ctc.log_probs(encoded.frames, encoded.lengths)[0][0].numpy())
        texts.append(normalize(cut.supervisions[0].text, language))
    return found, texts


def training_texts(language: str) -> list[str]:
    cuts = freevoices.read(RECIPE / "corpus")["train"]
    return [normalize(c.supervisions[0].text, language) for c in cuts if c.supervisions[0].language == language]


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    wrong = sum(edit_distance(a.split(), b.split())["total"] for a, b in zip(references, hypotheses, strict=True))
    return wrong / sum(len(reference.split()) for reference in references)


def measure(search: Callable[[np.ndarray], str], log_probs: list[np.ndarray]) -> Result:
    """Seconds for all, after a first one that does not count, and the texts."""
    search(log_probs[0])
    start = time.perf_counter()
    texts = [search(one) for one in log_probs]
    return {"seconds": time.perf_counter() - start, "texts": texts}


def through_graph(model: Recognizer, graph: Graph, max_active: int) -> Callable[[np.ndarray], str]:
    options = Lattice(max_active=max_active)

    def search(log_probs: np.ndarray) -> str:
        [best] = kaldi.best_paths(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]), graph, options)
        return model.tokenizer.decode(best.tokens)

    return search


def fifty_best(graph: Graph, log_probs: list[np.ndarray]) -> float:
    """Seconds for the lattices of H and their 50 best transcripts."""
    start = time.perf_counter()
    for one in log_probs:
        kaldi.intersect(torch.from_numpy(one)[None], torch.tensor([len(one)]), graph, Lattice()).best_paths(50)
    return time.perf_counter() - start


def measure_peers(python: Path, folder: Path) -> list[Result]:
    command = [str(python), str(HERE / "lattice_peers.py"), str(folder)]
    subprocess.run(command, check=True, env=os.environ | ONE_THREAD)
    return json.loads((folder / "results.json").read_text())


def fastest(results: list[Result], target: float) -> Result:
    """The fastest setting whose word error rate is at most ``target``."""
    return min((r for r in results if r["wer"] <= target), key=lambda result: result["seconds"])


def main() -> None:
    parser = common_options(__doc__, repeats=3)
    parser.add_argument("--language", default="cs")
    parser.add_argument("--limit", type=int, default=80)
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    options = parser.parse_args()
    if options.threads != 1:
        parser.error("--threads: a search has one")
    with_peers, sizes = options.peers_python.exists(), ACTIVE_STATES
    if options.shortest:
        with_peers, sizes, options.repeats, options.limit = False, ACTIVE_STATES[:1], 1, 2
    if not with_peers:
        say_absent("flashlight-text and pyctcdecode", "lattice")
    torch.set_num_threads(1)
    model = load_model(RECIPE / "model")
    log_probs, references = recognised(model, options.language, options.limit)
    audio = sum(map(len, log_probs)) * model.frame_seconds
    texts = training_texts(options.language)
    words = sorted({word for text in [*texts, *references] for word in text.split()})
    lm, tokens = estimate([text.split() for text in texts], 2), len(model.tokenizer)
    lexicon = make_lexicon(words, model.tokenizer, options.language, unknown_cost=None)
    graphs = {
        "masr HL": compose_graph(tokens, word_grammar(tokens, lexicon, None)),
        "masr HLG": compose_graph(tokens, word_grammar(tokens, lexicon, lm, LM_SCALE)),
    }
    passes: list[list[Result]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lm.save(folder / "words.arpa")
        named = {f"log_probs_{number}": one for number, one in enumerate(log_probs)}
        np.savez(folder / "log_probs.npz", allow_pickle=False, pieces=np.array(model.tokenizer.pieces), **named)
        (folder / "words.txt").write_text("\n".join(words), encoding="utf-8")
        for _ in range(options.repeats):
            ours = [
                {"decoder": name, "size": size, **measure(through_graph(model, graph, size), log_probs)}
                for name, graph in graphs.items()
                for size in sizes
            ]
            passes.append(ours + (measure_peers(options.peers_python, folder) if with_peers else []))
    results = passes[0]
    for number, result in enumerate(results):
        result["seconds"] = statistics.median(one[number]["seconds"] for one in passes)
        result["wer"] = word_error_rate(references, result["texts"])
    report(results, audio)
    seconds = statistics.median(fifty_best(compose_graph(tokens, None), log_probs) for _ in range(options.repeats))
    print(f"lattices of H and their 50 best: real-time factor {seconds / audio:.4f}")


def report(results: list[Result], audio: float) -> None:
    """The table, and the ratios at equal word error rate."""
    print("| decoder | beam or active states | seconds | real-time factor | WER |\n|---|--:|--:|--:|--:|")
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["decoder"], []).append(result)
        seconds = result["seconds"]
        print(
            f"| {result['decoder']} | {result['size']} | {seconds:.3f} | {seconds / audio:.5f} | {result['wer']:.2%} |"
        )
    for ours, others in (("masr HL", "no LM"), ("masr HLG", "KenLM")):
        for peer in [name for name in groups if name.endswith(others)]:
            target = 1.01 * max(min(r["wer"] for r in groups[name]) for name in (ours, peer))
            one, other = fastest(groups[ours], target), fastest(groups[peer], target)
            print(f"ratio {ours.split()[1]}-1best {peer.replace(' ', '-')} {other['seconds'] / one['seconds']:.2f}")


if __name__ == "__main__":
    main()
