"""Vectors of tokens in which similar tokens of different languages are close: what a clustered tree is made of.

V tokens, D dimensions; rows of NaN are tokens without a vector. Source: Yang et al. 2025 (arXiv 2501.17615), of which
only the names of two ways could be read: pretrained cross-lingual models, and Mono-Map. RECONSTRUCTED here: what of a
pretrained model is read, and all of Mono-Map but its idea, after VecMap (Artetxe et al. 2018, ACL).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.sparse import coo_array, csr_array, hstack
from scipy.sparse.linalg import svds

from masr.config import Vocab
from masr.files import reading, text_lines
from masr.text.tokenizer import SPECIAL, WORD_START, Tokenizer

WINDOW = 2
"""Tokens to each side that are a token's context."""
ROUNDS = 20
"""Most rounds of Mono-Map's self-learning."""
NEIGHBOURS = 5
"""Neighbours by which CSLS corrects similarities."""
SMALL = 256
"""Tokens up to which all singular vectors are computed, not only those that are wanted: so many take no time."""
CHUNK = 2**20
"""Similarities that are looked at in one go."""

Texts = Mapping[str, Sequence[Sequence[int]]]
"""Token ids of the sentences of each language."""


def token_embeddings(tokenizer: Tokenizer, texts: Texts, options: Vocab) -> np.ndarray:
    """(V, D) as ``options.tree`` wants them; special tokens have none."""
    tree = options.tree
    if tree.embeddings == "mono-map":
        pairs = same_pieces(tokenizer)
        if tree.lexicon is not None:
            pairs += read_lexicon(Path(tree.lexicon), tokenizer)
        vectors = mono_map(texts, len(tokenizer), tree.dimensions, pairs)
    else:
        if tree.folder is None:
            raise ValueError(f"vocab.tree.embeddings={tree.embeddings} needs vocab.tree.folder=...")
        folder = Path(tree.folder)
        trained = tree.embeddings == "recognizer"
        vectors = (
            recogniser_embeddings(folder, tokenizer)
            if trained
            else text_model_embeddings(folder, tokenizer, tree.pooled)
        )
        vectors -= np.nanmean(vectors, axis=0)  # what all have in common would hide in what they differ
    vectors[: len(SPECIAL) + tokenizer.language_token * len(tokenizer.languages)] = np.nan
    return vectors


# --- (a) Mono-Map ----------------------------------------------------------------------------------------------------


def mono_map(texts: Texts, tokens: int, dimensions: int, pairs: Sequence[tuple[int, int]] = ()) -> np.ndarray:
    """(V, D): the tokens of each language by their contexts, turned into the space of the language with most text.

    A language is turned so that the tokens it shares with those before it, and ``pairs`` of corresponding tokens, come
    to lie together (orthogonal Procrustes); then its own closest pairs are added and it is turned again, until no pair
    changes. Languages that share most come first. A token of several languages gets their mean by frequency.
    """
    counts = {code: np.bincount([t for line in lines for t in line], minlength=tokens) for code, lines in texts.items()}
    spaces = {code: monolingual(lines, tokens, dimensions) for code, lines in sorted(texts.items())}
    pivot = max(sorted(spaces), key=lambda code: counts[code].sum())
    weight = counts[pivot].astype(float)
    total = spaces.pop(pivot) * weight[:, None]
    while spaces:
        known = {code: int(((counts[code] > 0) & (weight > 0)).sum()) for code in spaces}
        code = max(spaces, key=lambda code: known[code])
        common = np.divide(total, weight[:, None], out=np.zeros_like(total), where=weight[:, None] > 0)
        turned = _turn(spaces.pop(code), counts[code] > 0, common, weight > 0, pairs)
        total, weight = total + turned * counts[code][:, None], weight + counts[code]
    return np.where(weight[:, None] > 0, total / np.maximum(weight, 1)[:, None], np.nan)


def monolingual(sentences: Sequence[Sequence[int]], tokens: int, dimensions: int) -> np.ndarray:
    """(V, D) unit vectors of the tokens of one language, 0 for those that do not occur.

    Singular vectors of the positive mutual information between a token and its neighbours at each distance, which is
    what word2vec factorises, too (Levy & Goldberg 2014, NIPS): for so little text exact, and the same every time. Only
    tokens that occur and neighbours that were seen take memory.
    """
    vectors = np.zeros((tokens, dimensions))
    words = [np.asarray(line, dtype=int) for line in sentences]
    own = np.unique(np.concatenate([*words, np.zeros(0, dtype=int)]))
    information = _information(_neighbours(words, own))
    if information.nnz:
        vectors[own] = _singular_vectors(information, dimensions)
    there = np.zeros(tokens, dtype=bool)
    there[own] = True
    return _centred_units(vectors, there)


def _neighbours(sentences: Sequence[np.ndarray], own: np.ndarray) -> csr_array:
    """(N, 2 WINDOW (N + 1)): how often each of the N ``own`` tokens has each neighbour at each distance.

    The last neighbour of each distance is the end of the sentence.
    """
    ends = np.full(WINDOW, len(own))
    parts = [ends]
    for line in sentences:
        parts += [np.searchsorted(own, line), ends]
    text = np.concatenate(parts)
    places = np.flatnonzero(text < len(own))
    size = (len(own), len(own) + 1)
    counts = []
    for offset in (*range(-WINDOW, 0), *range(1, WINDOW + 1)):
        pairs = (text[places], text[places + offset])
        counts.append(coo_array((np.ones(len(places)), pairs), shape=size).tocsr())  # adds up what is there twice
    return csr_array(hstack(counts))


def _information(counts: csr_array) -> csr_array:
    """Positive pointwise mutual information of counts; where nothing was counted there is none."""
    total, rows, columns = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    pairs = counts.tocoo()
    expected = rows[pairs.row] * columns[pairs.col] / max(total, 1)
    values = np.log(np.maximum(pairs.data / expected, 1))
    result = coo_array((values, (pairs.row, pairs.col)), shape=counts.shape).tocsr()
    result.eliminate_zeros()
    return result


def _singular_vectors(matrix: csr_array, number: int) -> np.ndarray:
    """(N, ``number``): left singular vectors of (N, M) times the roots of their values, the largest first.

    What is largest in a vector is positive, for otherwise its sign would be chance.
    """
    result = np.zeros((matrix.shape[0], number))
    if min(matrix.shape) <= max(SMALL, number):
        left, strength, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        random = np.random.default_rng(0)
        start = random.standard_normal(min(matrix.shape))
        left, strength, _ = svds(matrix, k=number, v0=start, rng=random)
    order = np.argsort(-strength, kind="stable")[:number]
    left, strength = left[:, order], strength[order]
    largest = left[np.abs(left).argmax(axis=0), np.arange(len(order))]
    result[:, : len(order)] = left * np.sign(largest) * np.sqrt(strength)
    return result


def _turn(ours: np.ndarray, has: np.ndarray, common: np.ndarray, known: np.ndarray, pairs: Sequence) -> np.ndarray:
    """``ours`` (V, D), the tokens that it ``has`` (V,), turned into the space of those that are ``known`` (V,)."""
    target = _units(common)
    seeds = {(token, token) for token in np.flatnonzero(has & known).tolist()}
    seeds |= {pair for a, b in pairs for pair in ((a, b), (b, a)) if has[pair[0]] and known[pair[1]]}
    if not seeds:
        raise ValueError("Mono-Map: a language shares no token with the others; name pairs in vocab.tree.lexicon")
    mine, theirs = np.flatnonzero(has), np.flatnonzero(known)
    dictionary = seeds
    for _ in range(ROUNDS):
        rows = np.array(sorted(dictionary))
        turned = ours @ _rotation(ours[rows[:, 0]], target[rows[:, 1]])
        found = {(int(mine[a]), int(theirs[b])) for a, b in _mutual_neighbours(turned[mine], target[theirs])}
        if seeds | found == dictionary:
            break
        dictionary = seeds | found
    return turned


def _rotation(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(D, D) that turns the rows of ``ours`` to those of ``theirs`` (orthogonal Procrustes; Schönemann 1966).

    Directions of which the pairs say nothing become 0, for in them similarities would mean nothing.
    """
    left, strength, right = np.linalg.svd(ours.T @ theirs)
    known = strength > 1e-6 * strength[0]
    return left[:, known] @ right[known]


def _mutual_neighbours(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows that are each other's nearest by CSLS (Conneau et al. 2018, arXiv 1710.04087).

    A few rows at a time, so that the table of all similarities is never there.
    """
    near = _nearness(ours, theirs)
    forward, back = np.zeros(len(ours), dtype=int), np.zeros(len(theirs), dtype=int)
    best = np.full(len(theirs), -np.inf)
    for rows in _chunks(len(ours), len(theirs)):
        csls = 2 * (ours[rows] @ theirs.T) - near[0][rows, None] - near[1]
        forward[rows] = csls.argmax(1)
        highest = csls.max(0)
        better = highest > best  # of equal ones the first, as argmax has it
        back[better] = rows.start + csls[:, better].argmax(0)
        best[better] = highest[better]
    return [(row, int(column)) for row, column in enumerate(forward) if back[column] == row]


def _nearness(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean similarity of each row (N,) of ``ours`` to its nearest of ``theirs``, and (M,) the other way round."""
    mine = np.zeros(len(ours))
    nearest = np.zeros((len(theirs), 0))
    for rows in _chunks(len(ours), len(theirs)):
        similar = ours[rows] @ theirs.T
        mine[rows] = _largest(similar).mean(1)
        nearest = _largest(np.concatenate([nearest, _largest(similar.T)], axis=1))
    return mine, nearest.mean(1)


def _largest(values: np.ndarray) -> np.ndarray:
    """The largest of each row, as many as there are neighbours."""
    if values.shape[1] > NEIGHBOURS:
        values = np.partition(values, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    return np.sort(values, axis=1)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    """Rows of which a table with so many columns has at most `CHUNK` numbers."""
    size = max(1, CHUNK // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _units(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _centred_units(vectors: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Rows that are ``there`` (V,) to unit length, mean taken off, to unit length again, as VecMap has them."""
    result = np.zeros_like(vectors)
    units = _units(vectors[there])
    result[there] = _units(units - units.mean(0)) if len(units) > 1 else units
    return result


def read_lexicon(path: Path, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Pairs of token ids from lines of two tokens; those that the vocabulary lacks are passed over, # is a comment."""
    ids: dict[str, list[int]] = {}
    for token, piece in enumerate(tokenizer.pieces):
        ids.setdefault(piece, []).append(token)
    pairs: list[tuple[int, int]] = []
    with reading(path, "it should hold two tokens a line"):
        lines = list(text_lines(path))
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if words and len(words) != 2:
            raise ValueError(f"{path}:{number}: expected two tokens, found {line!r}")
        if words:
            pairs += itertools.product(ids.get(words[0], []), ids.get(words[1], []))
    if not pairs:
        raise ValueError(f"vocab.tree.lexicon: {path} has no pair of which both are tokens of the vocabulary")
    return pairs


def same_pieces(tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Pairs of tokens of the same letters, which several languages have when each has its own token model."""
    ids: dict[str, list[int]] = {}
    for token, piece in enumerate(tokenizer.pieces):
        ids.setdefault(piece, []).append(token)
    return [pair for tokens in ids.values() for pair in itertools.combinations(tokens, 2)]


def source_files(options: Vocab) -> list[Path]:
    """Files besides the training text that a clustered tree is made of; they need not exist."""
    tree = options.tree
    if options.output != "clustered":
        return []
    if tree.embeddings == "mono-map":
        return [Path(tree.lexicon)] if tree.lexicon else []
    folder = Path(tree.folder or "")
    if tree.embeddings == "recognizer":
        return [folder / "averaged.safetensors", folder / "vocab" / "languages.json"]
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])


# --- (b) a pretrained text model -------------------------------------------------------------------------------------


def text_model_embeddings(folder: Path, tokenizer: Tokenizer, pooled: bool = False) -> np.ndarray:
    """(V, D) of a model of text, as `transformers` saves it (XLM-R, LaBSE, Whisper's decoder ...).

    A token gets the mean of the input embeddings of its text, or, ``pooled``, of the model's output for it. NaN where
    the model's own tokenizer knows nothing of it, e.g. of a space.
    """
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ImportError("vocab.tree.embeddings=text-model needs transformers: pip install masr[llm]") from error
    if not folder.is_dir():
        raise FileNotFoundError(
            f"vocab.tree.folder: no folder {folder}; save a Hugging Face model and its tokenizer there"
        )
    logging.disable_progress_bar()
    with reading(folder, "save the model and its tokenizer there again"):
        theirs, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    table, vectors = model.get_input_embeddings(), []
    for token, piece in enumerate(tokenizer.pieces):
        if token in tokenizer.bytes:
            piece = ""  # a byte of a character means nothing
        known = theirs(piece.replace(WORD_START, " "), add_special_tokens=False)["input_ids"]
        ids = torch.tensor([i for i in known if i != theirs.unk_token_id])
        with torch.inference_mode():
            rows = model(ids[None]).last_hidden_state[0] if pooled and len(ids) else table(ids.long())
        vectors.append(rows.float().mean(0).numpy())  # the mean of no rows is NaN
    return np.stack(vectors)


# --- (c) a trained recogniser ----------------------------------------------------------------------------------------


def recogniser_embeddings(folder: Path, tokenizer: Tokenizer) -> np.ndarray:
    """(V, D) output vectors of a recogniser with a flat softmax: of its attention decoder, or else of CTC.

    Tokens are matched by name; NaN for those that it does not have.
    """
    file = folder / "averaged.safetensors"
    with reading(file, "train it again"):
        theirs, weights = Tokenizer.load(folder / "vocab"), load_file(file)
    name = next(n for n in ("attention_decoder.output.weight", "ctc.output.weight", "") if n in weights or not n)
    if not name or len(weights[name]) % len(theirs):
        raise ValueError(f"vocab.tree.folder: {folder} has no flat softmax; train one with vocab.output=softmax")
    matrix = weights[name].reshape(-1, len(theirs), weights[name].shape[1])  # CTC: one for each frame that it makes
    rows = matrix.transpose(1, 0, 2).reshape(len(theirs), -1).astype(float)
    known = dict(zip(theirs.names, rows, strict=True))
    return np.stack([known.get(name, np.full(rows.shape[1], np.nan)) for name in tokenizer.names])


# --- to look at ------------------------------------------------------------------------------------------------------


def foreign_neighbours(vectors: np.ndarray, tokenizer: Tokenizer, texts: Texts, k: int = 3) -> dict[int, list[int]]:
    """The ``k`` tokens closest to each one by cosine, among those of languages that do not use it; best first."""
    users = token_users(texts, len(vectors))
    known = np.flatnonzero(users.any(1) & ~np.isnan(vectors).any(1))
    units, found = _units(vectors[known]), {}
    for row, token in enumerate(known):
        foreign = (users[known] & ~users[token]).any(1)
        similar = np.where(foreign, units @ units[row], -np.inf)
        nearest = (-similar).argsort(kind="stable")[: min(k, int(foreign.sum()))]
        found[int(token)] = known[nearest].tolist()
    return {token: others for token, others in found.items() if others}


def token_users(texts: Texts, tokens: int) -> np.ndarray:
    """(V, L) bool: which languages, in the order of ``texts``, use a token."""
    counts = [np.bincount([t for line in lines for t in line], minlength=tokens) for lines in texts.values()]
    return np.stack(counts, axis=1) > 0
