"""Between stages 2 and 4: language models of the training text. Stage 4 makes those that its methods need itself."""

import shutil
from pathlib import Path
from typing import Any

from masr.config import Config
from masr.decode.language_models import LanguageModels, estimate_models, spelling
from masr.decode.search import METHODS, Method
from masr.models.searcher import NEURAL, NGRAMS, save_neural
from masr.progress import say
from masr.stages import prepare, vocab
from masr.stages.output import SEAL, StageOutput, seal_of
from masr.stages.vocab import load_tokenizer, read_texts, vocab_folder
from masr.text.tokenizer import START_END, Tokenizer
from masr.train.language_model import train_language_model


def lm_folder(config: Config, kind: str) -> Path:
    """``data/lm/<vocabulary>/ngrams`` or ``.../neural``."""
    return Path(config.data_dir) / "lm" / vocab_folder(config).name / kind


def run(config: Config, force: bool = False, verify: bool = False) -> None:
    """Writes the n-gram models and the neural one, as far as ``decode.methods`` need them."""
    needed = [METHODS[name] for name in config.decode.methods]
    if any(method.ngrams for method in needed):
        _ngrams(config, force, verify)
    if any(method.neural for method in needed):
        _neural(config, force, verify)


def _ngrams(config: Config, force: bool, verify: bool) -> None:
    output = StageOutput("lm", lm_folder(config, "ngrams"), inputs=_inputs(config, "ngrams"))
    with output.writing(force, verify=verify) as needed:
        if needed:
            _estimate(output.folder, config)


def _estimate(folder: Path, config: Config) -> None:
    tokenizer = load_tokenizer(config)
    models = estimate_models(read_texts(config, config.corpus.train), tokenizer, config.language_model)
    models.save(folder)
    for code, lines in read_texts(config, config.corpus.dev).items():
        say(f"lm: {code}: {_quality(models, code, lines)}")


def _quality(models: LanguageModels, code: str, lines: list[str]) -> str:
    """Perplexities and unknown words on dev."""
    [words], [tokens] = models.of(models.words, [code]), models.of(models.tokens, [code])
    known, spoken = set(models.vocabulary.get(code, [])), [spelling(line, code, models.tokenizer) for line in lines]
    all_words = [word for line in lines for word in line.split()]
    unknown = sum(word not in known for word in all_words) / len(all_words)
    return (
        f"dev perplexity {tokens.perplexity(spoken):.1f} a token, {words.perplexity([ln.split() for ln in lines]):.0f} "
        f"a word; {unknown:.0%} of its words are unknown"
    )


def _neural(config: Config, force: bool, verify: bool) -> None:
    dev = {"dev": prepare.require(config, config.corpus.dev)["texts"]}  # which chooses the epoch
    output = StageOutput("lm", lm_folder(config, "neural"), inputs=_inputs(config, "neural") | dev)
    with output.writing(force, verify=verify) as needed:
        if needed:
            _train(output.folder, config)


def _train(folder: Path, config: Config) -> None:
    tokenizer = load_tokenizer(config)
    train, dev = (_sentences(config, tokenizer, split) for split in (config.corpus.train, config.corpus.dev))
    model = train_language_model(train, dev, len(tokenizer), START_END, config.language_model, config.seed)
    save_neural(model, folder / NEURAL, tokenizer)


def _sentences(config: Config, tokenizer: Tokenizer, split: str) -> list[list[int]]:
    texts = read_texts(config, split)
    return [tokenizer.encode(line, code) for code, lines in texts.items() for line in lines]


def copy_to(folder: Path, config: Config) -> None:
    """Gives a trained folder the models that its methods need, so that it recognises anywhere."""
    needed = [METHODS[name] for name in config.decode.methods]
    if any(method.ngrams for method in needed):
        shutil.copytree(
            lm_folder(config, "ngrams"), folder / "lm" / NGRAMS, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(SEAL),
        )  # fmt: skip
    if any(method.neural for method in needed):
        (folder / "lm").mkdir(exist_ok=True)
        shutil.copy(lm_folder(config, "neural") / NEURAL, folder / "lm" / NEURAL)


def require(config: Config, method: Method) -> list[str]:
    """Hashes of the complete models that a method needs."""
    kinds = [kind for kind, needed in (("ngrams", method.ngrams), ("neural", method.neural)) if needed]
    return [seal_of(lm_folder(config, kind), "lm") for kind in kinds]


def _inputs(config: Config, kind: str) -> dict[str, Any]:
    texts = prepare.require(config, config.corpus.train)["texts"]
    return {"vocab": vocab.require(config), "texts": texts, **_options(config, kind)}


def _options(config: Config, kind: str) -> dict[str, Any]:
    """What of a config decides one kind of models."""
    options = config.language_model.model_dump()
    chosen = {name: value for name, value in options.items() if name.startswith("neural") == (kind == "neural")}
    return {"language_model": chosen} | ({"seed": config.seed} if kind == "neural" else {})
