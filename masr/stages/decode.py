"""Stage 4: recognises the test splits with every method and prompt of the config; a forward pass serves all methods."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from kaldialign import edit_distance
from lhotse.cut import Cut

from masr.config import Config
from masr.data.batches import Batch, CutFeatures, collate, load_usable
from masr.data.prompts import Prompter, prompts_of
from masr.data.rejected import Rejected
from masr.data.sampling import as_written, language_of, split_by_duration, text_of, translation_of
from masr.decode.alignment import timed_words
from masr.decode.hypothesis import Hypothesis
from masr.decode.rescore import NBest, ScaleChoice
from masr.decode.search import METHODS, Searcher, Setting, check_methods, result_names
from masr.decode.utterances import Utterances, utterances_of
from masr.files import file_hash, write_whole
from masr.models.folder import WEIGHTS, load_model
from masr.models.recognizer import Recognizer
from masr.models.searcher import load_searcher, save_scales
from masr.nn.encoder import EncoderOutput
from masr.progress import say, track
from masr.stages import features, lm
from masr.stages.features import load_cuts
from masr.stages.output import StageOutput
from masr.stages.train import experiment_folder
from masr.text.characters import characters


def run(config: Config, force: bool = False, verify: bool = False) -> None:
    """Writes ``exp/<name>/decode/<method>/<split>.jsonl``, one line an utterance, and likewise ``<method>@<prompt>``.

    A method with scales gets those with the smallest macro CER on dev, and keeps them in ``scales.json``.
    """
    folder = experiment_folder(config)
    model = load_model(folder, "cuda" if torch.cuda.is_available() else "cpu")
    check_methods(config.decode, model)
    lm.run(config)
    results = result_names(config.decode)
    prompters = {prompt: prompts_of(prompt, model.tokenizer.languages) for prompt in config.decode.prompts}
    outputs = {
        name: StageOutput("decode", folder / "decode" / name, inputs=_inputs(config, *results[name]))
        for name in results
    }
    outputs = {name: output for name, output in outputs.items() if force or not output.is_complete(verify)}
    if not outputs:
        say(f"decode: complete in {folder / 'decode'} (--force redoes it)")
        return
    with ExitStack() as stack:
        for output in outputs.values():
            stack.enter_context(output.writing(force=True))
        _decode(model, {name: results[name] for name in outputs}, prompters, config)


def _decode(
    model: Recognizer, results: dict[str, tuple[str, str]], prompters: dict[str, Prompter], config: Config
) -> None:
    """Decodes all test splits into the folders ``results``, which are a method and a prompt each."""
    folder = experiment_folder(config)
    lm.copy_to(folder, config)
    searcher = load_searcher(folder, model, config.decode)
    for prompt in dict.fromkeys(prompt for _, prompt in results.values()):
        names = {method: name for name, (method, its_prompt) in results.items() if its_prompt == prompt}
        settings = _choose_scales(names, prompters[prompt], searcher, model, config)
        for split in config.corpus.test:
            _decode_split(split, names, prompters[prompt], searcher, model, settings, config)


def _inputs(config: Config, method: str, prompt: str) -> dict[str, Any]:
    return {
        "weights": file_hash(experiment_folder(config) / WEIGHTS),
        "splits": {split: features.require(config, split) for split in config.corpus.test},
        "dev": features.require(config, config.corpus.dev) if METHODS[method].has_scales(config.decode) else None,
        "decode": config.decode.model_dump(exclude={"methods", "prompts"}), "lm": lm.require(config, METHODS[method]),
        "bias": file_hash(Path(config.decode.bias_file)) if config.decode.bias_file else None, "prompt": prompt,
    }  # fmt: skip


@torch.no_grad()
def _choose_scales(
    results: dict[str, str], prompter: Prompter, searcher: Searcher, model: Recognizer, config: Config
) -> dict[str, Setting]:
    """The best setting of every method on dev; what has no scales has one setting. ``results`` are their folders."""
    choices = {name: ScaleChoice(METHODS[name].scales(config.decode)) for name in results}
    undecided = {name: choice for name, choice in choices.items() if len(choice.settings) > 1}
    for cuts, batch in _batches(config.corpus.dev, prompter, model, config, "scales") if undecided else ():
        _, utterances = _listen(model, batch)
        for name, choice in undecided.items():
            each = searcher(name, utterances, choice.settings)
            for row, cut in enumerate(cuts):
                code, written = language_of(cut), model.tokenizer
                texts = [as_written(found[row][0].text, code, written) for found in each]
                choice.add(code, text_of(cut, written), texts)
    for name, choice in undecided.items():
        save_scales(experiment_folder(config), results[name], choice.best(), choice.macro_cer.min())
        scales = ", ".join(f"{part} {value:g}" for part, value in choice.best().items())
        best = f"best of {len(choice.settings)} on dev: macro CER {choice.macro_cer.min():.2%}"
        say(f"decode: {results[name]}: {scales}, {best}")
    return {name: choice.best() if name in undecided else choice.settings[0] for name, choice in choices.items()}


@torch.no_grad()
def _decode_split(
    split: str, results: dict[str, str], prompter: Prompter, searcher: Searcher, model: Recognizer,
    settings: dict[str, Setting], config: Config,
) -> None:  # fmt: skip
    lines: dict[str, list[dict]] = {method: [] for method in settings}
    for number, (cuts, batch) in enumerate(_batches(split, prompter, model, config, "decode")):
        if number == 0:  # not timed: decoding graphs are compiled, and a GPU has to wake up
            _decode_batch(cuts, batch, searcher, model, settings)
        for method, rows in _decode_batch(cuts, batch, searcher, model, settings).items():
            lines[method] += rows
    for method, rows in lines.items():
        path = experiment_folder(config) / "decode" / results[method] / f"{split}.jsonl"
        _write_lines(sorted(rows, key=lambda row: row["id"]), path)
        seconds, audio = sum(row["seconds"] for row in rows), sum(row["duration"] for row in rows)
        if not rows:
            raise ValueError(f"decode: {split}: {results[method]}: no recording has a translation to compare with")
        say(f"decode: {split}: {results[method]}: {len(rows)} utterances at real-time factor {seconds / audio:.4f}")


def _batches(
    split: str, prompter: Prompter, model: Recognizer, config: Config, what: str
) -> Iterator[tuple[list[Cut], Batch]]:
    """The usable recordings of a split, with progress; the others are listed in the end."""
    cuts, load = load_cuts(config, split), CutFeatures(model.config.features)
    rejected = Rejected(experiment_folder(config) / "decode" / f"{split}.rejected.tsv")
    parts = split_by_duration(cuts, config.decode.batch_seconds)
    total = sum(cut.duration for cut in cuts)
    for part in track(parts, f"{what}: {split}", total, lambda part: sum(cut.duration for cut in part), "s"):
        found, usable = load_usable(part, load, rejected.reasons)
        if usable:
            yield usable, collate(found, usable, model.tokenizer, prompter).to(model.feature_mean.device)
    rejected.finish(f"{what}: {split}", len(cuts), config.data.max_bad_fraction)
    if len(rejected.reasons) == len(cuts):
        raise ValueError(f"{what}: no recording of {split} can be used; reasons in {rejected.path}")


def _decode_batch(
    cuts: list[Cut], batch: Batch, searcher: Searcher, model: Recognizer, settings: dict[str, Setting]
) -> dict[str, list[dict]]:
    """Lines of every method; an utterance's seconds are its share, by duration, of encoder and search."""
    began = _now()
    encoded, utterances = _listen(model, batch)
    encoding = _now() - began
    total = sum(cut.duration for cut in cuts)
    rows: dict[str, list[dict]] = {}
    for method, setting in settings.items():
        began = _now()
        [found] = searcher(method, utterances, [setting])
        rate = (encoding + _now() - began) / total
        if METHODS[method].translates:
            rows[method] = list(_translations(cuts, found, rate, model))
            continue
        best = [nbest[0] for nbest in found]
        if METHODS[method].oracle:
            best = [_closest(nbest, cut, model) for nbest, cut in zip(found, cuts, strict=True)]
        model.add_times(best, utterances)
        languages = model.predict_languages(encoded, found, batch.allowed_languages)
        rows[method] = [
            _line(cut, hypothesis, nbest, language, rate * cut.duration, timed_words(hypothesis, model))
            | _published_reference(cut, model)
            | shares
            for cut, hypothesis, nbest, language, shares in zip(
                cuts, best, found, languages, _language_weights(encoded, model, len(cuts)), strict=True
            )
        ]
    return rows


def _translations(cuts: list[Cut], found: NBest, rate: float, model: Recognizer) -> Iterator[dict]:
    """Lines of the utterances of which a translation is known."""
    assert model.tokenizer.translation is not None
    into = model.tokenizer.translation.languages[0]
    for cut, nbest in zip(cuts, found, strict=True):
        if reference := translation_of(cut, into):
            best, seconds = nbest[0], round(rate * cut.duration, 6)
            yield {
                "id": cut.id, "language": cut.supervisions[0].language, **_voice(cut),
                "into": into, "reference": reference, "hypothesis": best.text, "score": _or_null(best.score),
                "nbest": [{"text": h.text, "score": _or_null(h.score)} for h in nbest],
                "seconds": seconds, "duration": round(cut.duration, 4),
            }  # fmt: skip


def _language_weights(encoded: EncoderOutput, model: Recognizer, number: int) -> list[dict]:
    """What language adapters add to a line."""
    if encoded.language_weights is None:
        return [{}] * number
    shares = [[round(share, 4) for share in row] for row in encoded.language_weights.tolist()]
    return [{"language_weights": dict(zip(model.languages, row, strict=True))} for row in shares]


def _published_reference(cut: Cut, model: Recognizer) -> dict[str, str]:
    """What a line has besides where the model writes text with case and punctuation."""
    return {"published_reference": text_of(cut, model.tokenizer)} if model.tokenizer.text == "published" else {}


def _closest(nbest: list[Hypothesis], cut: Cut, model: Recognizer) -> Hypothesis:
    """The hypothesis with the fewest wrong characters, the oracle's choice."""
    code, written = language_of(cut), model.tokenizer
    reference = characters(text_of(cut, written), code)

    def errors(hypothesis: Hypothesis) -> int:
        return edit_distance(reference, characters(as_written(hypothesis.text, code, written), code))["total"]

    return min(nbest, key=errors)


def _listen(model: Recognizer, batch: Batch) -> tuple[EncoderOutput, Utterances]:
    encoded = model.encode(batch.features, batch.feature_lengths, batch.allowed_languages)
    return encoded, utterances_of(model, encoded, batch.allowed_languages)


def _now() -> float:
    """Seconds, after all that a GPU was given to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _line(
    cut: Cut, best: Hypothesis, nbest: list[Hypothesis], language: str | None, seconds: float,
    words: list[tuple[str, float, float]],
) -> dict:  # fmt: skip
    return {
        "id": cut.id, "language": cut.supervisions[0].language, **_voice(cut),
        "reference": cut.supervisions[0].text,
        "hypothesis": best.text, "predicted_language": language, "score": _or_null(best.score),
        "nbest": [{"text": h.text, "score": _or_null(h.score), "parts": h.parts} for h in nbest],
        "words": [(word, round(start, 2), round(end, 2)) for word, start, end in words],
        "seconds": round(seconds, 6), "duration": round(cut.duration, 4),
    }  # fmt: skip


def _voice(cut: Cut) -> dict[str, str]:
    """Who speaks, as intervals draw speakers; nothing where a corpus names nobody, so that each has its own name."""
    supervision = cut.supervisions[0]
    known = {"speaker": supervision.speaker, "session": (supervision.custom or {}).get("session")}
    return {name: str(value) for name, value in known.items() if value and value not in (cut.id, supervision.id)}


def _or_null(score: float) -> float | None:
    """JSON has no infinity, which is the score where a search found nothing."""
    return score if math.isfinite(score) else None


def _write_lines(rows: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
