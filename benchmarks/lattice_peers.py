"""The peers' side of ``lattice.py``: one timed pass of each peer and size. Needs neither masr nor torch.

    .venv-pyctcdecode/bin/python benchmarks/lattice_peers.py FOLDER

``FOLDER`` holds log_probs.npz, words.txt and words.arpa; the results are written there as results.json.
"""

import itertools
import json
import logging
import sys
from pathlib import Path

import numpy as np
from ctc_search_peers import BLANK, Search, measure
from flashlight.lib.text.decoder import (
    CriterionType,
    LexiconDecoder,
    LexiconDecoderOptions,
    SmearingMode,
    Trie,
    ZeroLM,
)
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

LM_WEIGHT = 0.5
BEAMS = (5, 10, 25, 50, 100, 200)
WORD_SCORES = (-2.0, -5.0, -8.0)
"""flashlight-text lets words follow each other without the space's piece; without a price for each it writes dozens."""


def flashlight_search(
    folder: Path, pieces: list[str], words: list[str], beam: int, word_score: float, with_lm: bool
) -> Search:
    """Lexicon decoder, best alignment as in a decoding graph; the space's piece is its silence."""
    dictionary = Dictionary(words)
    lm = KenLM(str(folder / "words.arpa"), dictionary) if with_lm else ZeroLM()
    silence, numbers = pieces.index("▁"), {piece: i for i, piece in enumerate(pieces)}
    trie, start = Trie(len(pieces), silence), lm.start(False)
    for word in words:
        index = dictionary.get_index(word)
        _, score = lm.score(start, index)
        trie.insert([numbers[letter] for letter in word], index, score)
    trie.smear(SmearingMode.MAX)
    options = LexiconDecoderOptions(
        beam_size=beam, beam_size_token=min(20, len(pieces)), beam_threshold=25.0,
        lm_weight=LM_WEIGHT if with_lm else 0.0,
        word_score=word_score, unk_score=-float("inf"), sil_score=0.0, log_add=False, criterion_type=CriterionType.CTC,
    )  # fmt: skip
    decoder = LexiconDecoder(options, trie, lm, silence, BLANK, -1, [], False)

    def search(log_probs: np.ndarray) -> str:
        found = decoder.decode(log_probs.ctypes.data, *log_probs.shape)
        return " ".join(dictionary.get_entry(i) for i in found[0].words if i >= 0) if found else ""

    return search


def pyctcdecode_search(folder: Path, pieces: list[str], words: list[str], beam: int) -> Search:
    logging.disable(logging.WARNING)
    from pyctcdecode import build_ctcdecoder

    labels = ["", *(" " if piece == "▁" else piece for piece in pieces[1:])]
    decoder = build_ctcdecoder(labels, str(folder / "words.arpa"), unigrams=words, alpha=LM_WEIGHT, beta=0.0)
    return lambda log_probs: decoder.decode(log_probs, beam_width=beam)


def main() -> None:
    folder = Path(sys.argv[1])
    with np.load(folder / "log_probs.npz") as arrays:
        pieces = arrays["pieces"].tolist()
        names = sorted((name for name in arrays if name != "pieces"), key=lambda name: int(name.rpartition("_")[2]))
        log_probs = [np.ascontiguousarray(arrays[name], dtype=np.float32) for name in names]
    words = (folder / "words.txt").read_text(encoding="utf-8").split()
    results = []
    for beam, score, with_lm in itertools.product(BEAMS, WORD_SCORES, (False, True)):
        name = f"flashlight-text {'KenLM' if with_lm else 'no LM'}"
        search = flashlight_search(folder, pieces, words, beam, score, with_lm)
        results.append({"decoder": name, "size": beam, **measure(search, log_probs)})
    for beam in BEAMS:
        search = pyctcdecode_search(folder, pieces, words, beam)
        results.append({"decoder": "pyctcdecode KenLM", "size": beam, **measure(search, log_probs)})
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
