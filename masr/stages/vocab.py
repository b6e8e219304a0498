"""Stage 2: the token vocabulary of the training text and, for a hierarchical softmax, the tree over it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from masr.config import Config, TranslationVocab, Vocab
from masr.data.sampling import language_of, text_of, translation_of
from masr.files import file_hash
from masr.progress import say
from masr.stages import prepare
from masr.stages.output import StageOutput, seal_of
from masr.stages.prepare import all_splits, manifests, read_cuts
from masr.text.languages import language_name
from masr.text.tokenizer import SHARED, START_END, Tokenizer, train_tokenizer
from masr.vocab import tree as trees
from masr.vocab.embeddings import Texts, source_files, token_embeddings
from masr.vocab.tree import FILE, Tree

SHOWN = 20
"""Lost characters that are shown of a language, the frequent ones first."""
ADDED = ("text", "character_coverage", "byte_fallback")
"""Options that vocabularies of before they existed were made without."""


def vocab_folder(config: Config) -> Path:
    """``data/vocab/<kind and size>``."""
    options = config.vocab
    form = "-published" if options.text == "published" else ""
    if options.kind == "whisper":
        return Path(config.data_dir) / "vocab" / (_last_name(config.model.pretrained or "whisper") + form)
    name = options.kind + (str(options.size) if options.kind != "char" else "") + form
    name += f"-coverage{options.character_coverage:g}" if options.character_coverage < 1 else ""
    name += "-bytes" if options.byte_fallback else ""
    name += ("-per-language" if options.per_language else "") + ("-language-token" if options.language_token else "")
    tree, source = options.tree, Path(options.tree.folder or "").name
    ending = {
        "softmax": "", "huffman": "-huffman", "balanced": f"-balanced{tree.seed}",
        "clustered": f"-clustered-{tree.embeddings if tree.embeddings == 'mono-map' else source}-{tree.linkage}",
    }  # fmt: skip
    name += ending[options.output]
    if options.translation.into:
        into = options.translation
        name += f"-into-{into.into}-{into.kind}" + (str(into.size) if into.kind != "char" else "")
    return Path(config.data_dir) / "vocab" / name


def _last_name(path: str) -> str:
    """Of a folder; that of ``.`` and ``..`` is what they stand for, else the vocabulary would lie elsewhere."""
    name = Path(path).name
    return name if name.strip(".") else Path(path).resolve().name or "whisper"


def run(config: Config, force: bool = False, verify: bool = False) -> None:
    """Writes the tokenizer and the tree; what the vocabulary loses of each split is counted for the user's eyes."""
    inputs: dict[str, Any] = {"texts": prepare.require(config, config.corpus.train)["texts"]}
    if sources := [file for file in source_files(config.vocab) if file.is_file()]:
        inputs["sources"] = [file_hash(file) for file in sources]
    output = StageOutput("vocab", vocab_folder(config), options(config), inputs)
    with output.writing(force, verify=verify) as needed:
        if needed:
            _write(output.folder, config)


def _write(folder: Path, config: Config) -> None:
    texts = read_texts(config, config.corpus.train)
    tokenizer = _tokenizer(texts, config)
    tokenizer.translation = _translation_tokenizer(config)
    tokenizer.save(folder)
    lines = [(line, code) for code, group in texts.items() for line in group]
    encoded = [tokenizer.encode(line, code) for line, code in lines]
    tokens = sum(map(len, encoded))
    say(f"vocab: {len(tokenizer)} tokens, {tokens / len(lines):.1f} a sentence ({config.vocab.kind}) in {folder}")
    _say_other_sizes(tokenizer, config.vocab)
    if tokenizer.translation is not None:
        say(f"vocab: {len(tokenizer.translation)} tokens for translations into {config.vocab.translation.into}")
        _say_other_sizes(tokenizer.translation, config.vocab.translation, "translation.")
    for split in all_splits(config):
        _say_what_is_lost(split, read_texts(config, split), tokenizer)
    if config.vocab.byte_fallback and not any(token in tokenizer.bytes for line in encoded for token in line):
        say("vocab: training text has no character to learn bytes from: lower vocab.character_coverage, e.g. 0.9995")
    if config.vocab.output != "softmax":
        _write_tree(tokenizer, texts, config, folder)


def _tokenizer(texts: dict[str, list[str]], config: Config) -> Tokenizer:
    if config.vocab.kind != "whisper":
        return train_tokenizer(texts, config.vocab)
    from masr.text.whisper_tokenizer import WhisperTokenizer

    assert config.model.pretrained is not None
    codes = config.model.whisper.language_codes
    tokenizer = WhisperTokenizer.of_pretrained(config.model.pretrained, sorted(texts), codes)
    tokenizer.text = config.vocab.text
    for code, languages in tokenizer.sharing().items():
        say(
            f"vocab: {', '.join(languages)} share Whisper's token <|{code}|>, so it cannot tell them apart: decode "
            "with the language given (decode.prompts=[oracle])"
        )
    return tokenizer


def _translation_tokenizer(config: Config) -> Tokenizer | None:
    """Tokens of the translations of the training text, used by the languages that are translated; ValueError if none
    is."""
    options = config.vocab.translation
    if options.into is None:
        return None
    texts: dict[str, list[str]] = defaultdict(list)
    for cut in read_cuts(manifests(config), config.corpus.train):
        if text := translation_of(cut, options.into):
            texts[cut.supervisions[0].language].append(text)
    if not texts:
        raise ValueError(f"vocab.translation.into={options.into}: no recording of {config.corpus.train} is translated")
    lines = [line for group in texts.values() for line in group]
    tokenizer = train_tokenizer({options.into: lines}, Vocab(kind=options.kind, size=options.size))
    encoded = {code: [tokenizer.encode(line, options.into) for line in group] for code, group in sorted(texts.items())}
    tokenizer.used = {code: sorted({token for line in group for token in line}) for code, group in encoded.items()}
    return tokenizer


def _write_tree(tokenizer: Tokenizer, texts: dict[str, list[str]], config: Config, folder: Path) -> None:
    """The tree, and for those who want to look at it a picture, and what is close to what."""
    from masr.vocab import plots

    ids = {code: [tokenizer.encode(line, code) for line in lines] for code, lines in texts.items()}
    counts = token_counts(ids, len(tokenizer))
    tree, vectors = build_tree(tokenizer, ids, counts, config.vocab)
    tree.save(folder / FILE, tokenizer.hash())
    say(f"vocab: {config.vocab.output} tree: {tree.describe(counts)}")
    plots.draw_tree(tree, tokenizer, ids, folder / "tree.svg")
    if vectors is not None:
        plots.write_neighbours(vectors, tokenizer, ids, folder / "neighbours.md")


def build_tree(tokenizer: Tokenizer, ids: Texts, counts: np.ndarray, options: Vocab) -> tuple[Tree, np.ndarray | None]:
    """The tree that ``options.output`` names and, of a clustered one, the vectors (V, D) that it is made of."""
    if options.output == "huffman":
        return trees.huffman(counts, tokenizer.names, tokenizer.bytes), None
    if options.output == "balanced":
        return trees.balanced(tokenizer.names, options.tree.seed), None
    vectors = token_embeddings(tokenizer, ids, options)
    return trees.clustered(vectors, counts, tokenizer.names, options.tree.linkage, tokenizer.bytes), vectors


def token_counts(ids: Texts, tokens: int) -> np.ndarray:
    """How often each token (V,) is decided for in a text: once more for the end of every sentence."""
    sentences = [line for lines in ids.values() for line in lines]
    return np.bincount([token for line in sentences for token in (*line, START_END)], minlength=tokens)


def options(config: Config) -> dict[str, Any]:
    """What of a config decides the output of this stage."""
    unused = {"tree", *(["output"] if config.vocab.output == "softmax" else [])}
    unused |= set() if config.vocab.translation.into else {"translation"}
    unused |= {name for name in ADDED if getattr(config.vocab, name) == Vocab.model_fields[name].default}
    if config.vocab.kind == "whisper":
        of_whisper = {"pretrained": config.model.pretrained, "language_codes": config.model.whisper.language_codes}
        return {"vocab": config.vocab.model_dump(exclude={*unused, "size", "per_language"}) | of_whisper}
    vocab = config.vocab.model_dump(exclude=unused)
    if config.vocab.output == "balanced":
        vocab["tree"] = {"seed": config.vocab.tree.seed}
    if config.vocab.output == "clustered":
        vocab["tree"] = config.vocab.tree.model_dump(exclude={"seed"})
    return {"vocab": vocab}


def require(config: Config) -> str:
    """Hash of the complete output of this stage; an error when it is missing or was made with other options."""
    prepare.require(config, config.corpus.train)
    return seal_of(vocab_folder(config), "vocab", options(config))


def load_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer that stage 2 wrote."""
    require(config)
    return Tokenizer.load(vocab_folder(config))


def load_tree(config: Config) -> Tree | None:
    """The tree that stage 2 wrote, if the config wants one."""
    return trees.load(vocab_folder(config), config.vocab, load_tokenizer(config))


def read_texts(config: Config, split: str) -> dict[str, list[str]]:
    """Sentences of a split by language, normalised or as published (vocab.text)."""
    texts: dict[str, list[str]] = defaultdict(list)
    for cut in read_cuts(manifests(config), split):
        if cut.supervisions[0].text:  # speech that is used without its text may have none
            texts[language_of(cut)].append(text_of(cut, config.vocab))
    return dict(texts)


def _say_other_sizes(tokenizer: Tokenizer, options: Vocab | TranslationVocab, section: str = "") -> None:
    """Where a SentencePiece model has not as many pieces as were asked for."""
    if options.kind not in ("bpe", "unigram"):
        return
    for name, model in tokenizer.models.items():
        found, of = model.get_piece_size(), "" if name == SHARED else f" of {name}"
        asked = f"vocab.{section}size={options.size}"
        if found > options.size:
            say(f"vocab: {asked} is too small for the characters of the training text{of}: {found} pieces instead")
        elif found < options.size:
            say(f"vocab: {asked}: the training text{of} is enough for {found} pieces only")


def _say_what_is_lost(split: str, texts: Mapping[str, Sequence[str]], tokenizer: Tokenizer) -> None:
    """A line for each language with characters that can neither be learnt nor written."""
    for code, lines in sorted(texts.items()):
        if code not in tokenizer.languages:  # it is not recognised at all
            continue
        lost: Counter[str] = Counter()
        for line in lines:
            lost.update(tokenizer.unknown_characters(line, code))
        if not lost:
            continue
        total = sum(len(line.replace(" ", "")) for line in lines)
        most = sorted(lost.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{character} {count}" for character, count in most[:SHOWN])
        more = f" and {len(most) - SHOWN} more" if len(most) > SHOWN else ""
        say(
            f"vocab: {split}: {language_name(code)}: {lost.total()} of {total} characters are not in the vocabulary "
            f"and cannot be written: {shown}{more}; e.g. {_example(lines, code, tokenizer)}"
        )


def _example(lines: Sequence[str], code: str, tokenizer: Tokenizer) -> str:
    """The first word with a lost character, and what is left of it: ``über -> er``."""
    words = (word for line in lines for word in line.split())
    word = next(word for word in words if tokenizer.unknown_characters(word, code))
    return f"{word} -> {tokenizer.decode(tokenizer.encode(word, code)) or 'nothing'}"
