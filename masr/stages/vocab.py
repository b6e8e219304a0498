"""Stage 2: the token vocabulary of the training text."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from masr.config import Config
from masr.progress import say
from masr.stages.output import StageOutput, seal_of
from masr.stages.prepare import all_splits, manifests, read_cuts
from masr.stages.prepare import require as require_manifests
from masr.text.tokenizer import Tokenizer, train_tokenizer


def vocab_folder(config: Config) -> Path:
    """``data/vocab/<kind and size>``."""
    options = config.vocab
    name = options.kind + (str(options.size) if options.kind != "char" else "")
    name += ("-per-language" if options.per_language else "") + ("-language-token" if options.language_token else "")
    return Path(config.data_dir) / "vocab" / name


def run(config: Config, force: bool = False) -> None:
    """Writes the tokenizer, with unseen dev and test characters counted for the user's eyes."""
    output = StageOutput("vocab", vocab_folder(config), {"manifests": require_manifests(config), **options(config)})
    if not output.begin(force):
        return
    texts = read_texts(config, config.corpus.train)
    tokenizer = train_tokenizer(texts, config.vocab)
    tokenizer.save(output.folder)
    lines = [(line, code) for code, group in texts.items() for line in group]
    tokens = sum(len(tokenizer.encode(line, code)) for line, code in lines)
    say(
        f"vocab: {len(tokenizer)} tokens, {tokens / len(lines):.1f} a sentence ({config.vocab.kind}) in {output.folder}"
    )
    _warn_of_unknown_characters(texts, config)
    output.seal()


def options(config: Config) -> dict[str, Any]:
    """What of a config decides the output of this stage."""
    return {"vocab": config.vocab.model_dump()}


def require(config: Config) -> str:
    """Hash of the complete output of this stage; an error when it is missing or was made with other options."""
    require_manifests(config)
    return seal_of(vocab_folder(config), "vocab", options(config))


def load_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer that stage 2 wrote."""
    require(config)
    return Tokenizer.load(vocab_folder(config))


def read_texts(config: Config, split: str) -> dict[str, list[str]]:
    """Normalised sentences of a split by language."""
    texts: dict[str, list[str]] = defaultdict(list)
    for cut in read_cuts(manifests(config), split):
        texts[cut.supervisions[0].language].append(cut.supervisions[0].text)
    return dict(texts)


def _warn_of_unknown_characters(texts: dict[str, list[str]], config: Config) -> None:
    known = {c for lines in texts.values() for line in lines for c in line}
    for split in all_splits(config)[1:]:
        unseen = {c for lines in read_texts(config, split).values() for line in lines for c in line} - known
        if unseen:
            say(f"vocab: {split} has characters that training text has not: {' '.join(sorted(unseen))}")
