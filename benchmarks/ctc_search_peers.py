"""The peers' side of ``ctc_search.py``: one timed pass of each peer. Needs neither masr nor torch.

    .venv-pyctcdecode/bin/python benchmarks/ctc_search_peers.py log_probs.npz results.json --beam 10

``results.json``: ``{peer: {"seconds": ..., "texts": [...]}}``. Neither peer has a language model.
"""

import argparse
import itertools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM

BLANK = 0
Search = Callable[[np.ndarray], str]


def pyctcdecode_search(pieces: list[str], beam: int) -> Search:
    """pyctcdecode as it comes: tokens from -5, beams from -10 nats. ``pieces[0]`` is blank."""
    # On import it warns that KenLM is missing, which is not used here.
    logging.disable(logging.WARNING)
    from pyctcdecode import build_ctcdecoder

    decoder = build_ctcdecoder(["", *pieces[1:]])
    return lambda log_probs: decoder.decode(log_probs, beam_width=beam)


def flashlight_search(pieces: list[str], beam: int) -> Search:
    """flashlight-text without a lexicon, alignments summed, 20 tokens a frame, beams from -10 nats: fast settings."""
    options = LexiconFreeDecoderOptions(
        beam_size=beam,
        beam_size_token=min(20, len(pieces)),
        beam_threshold=10.0,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=CriterionType.CTC,
    )
    decoder = LexiconFreeDecoder(options, ZeroLM(), -1, BLANK, [])

    def search(log_probs: np.ndarray) -> str:
        found = decoder.decode(log_probs.ctypes.data, *log_probs.shape)[0].tokens
        tokens = [token for token, _ in itertools.groupby(found) if token > BLANK]
        return "".join(pieces[token] for token in tokens).replace("▁", " ").strip()

    return search


def measure(search: Search, log_probs: list[np.ndarray]) -> dict[str, object]:
    """Seconds for all of ``log_probs``, each (T, V), after a first one that does not count; and the texts."""
    search(log_probs[0])
    start = time.perf_counter()
    texts = [search(one) for one in log_probs]
    return {"seconds": time.perf_counter() - start, "texts": texts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log_probs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--beam", type=int, default=10)
    options = parser.parse_args()
    with np.load(options.log_probs) as arrays:
        pieces = arrays["pieces"].tolist()
        names = sorted((name for name in arrays if name != "pieces"), key=lambda name: int(name.rpartition("_")[2]))
        log_probs = [np.ascontiguousarray(arrays[name], dtype=np.float32) for name in names]
    results = {
        "pyctcdecode": measure(pyctcdecode_search(pieces, options.beam), log_probs),
        "flashlight-text": measure(flashlight_search(pieces, options.beam), log_probs),
    }
    options.results.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
