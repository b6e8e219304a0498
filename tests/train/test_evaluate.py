"""Dev CER: what a character is, and in which form of text."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from lhotse import SupervisionSegment
from lhotse.testing.dummies import dummy_cut

from masr.train import evaluate as module
from masr.train.evaluate import Evaluation, evaluate, note_score


def spoken(number: int, language: str, text: str, published: str) -> object:
    supervision = SupervisionSegment(
        f"s{number}", "r", 0.0, 1.0, text=text, language=language, custom={"published_text": published}
    )
    return dummy_cut(number, supervisions=[supervision])


CUTS = [
    (spoken(0, "ja", "今日は 晴れ", "今日は、晴れ。"), "今日は晴れ"),
    (spoken(1, "th", "ไม่ใช่", "ไม่ใช่"), "ไม่ ใช่"),
    (spoken(2, "de", "ein haus", "Ein Haus."), "Ein haus"),
]


@pytest.mark.parametrize(
    ("text", "cer"),
    [("normalized", {"ja": 0.0, "th": 0.0, "de": 0.0}), ("published", {"ja": 2 / 7, "th": 0.0, "de": 2 / 9})],
)
def test_spaces_are_no_characters_where_words_are_not_written_apart(monkeypatch, text, cer):
    model = SimpleNamespace(tokenizer=SimpleNamespace(languages=["de", "ja", "th"], text=text))

    def recognised(model, part, prompt, device, rejected, translations):
        return [(cut, module.as_written(said, cut.supervisions[0].language, model.tokenizer)) for cut, said in CUTS]

    monkeypatch.setattr(module, "_recognize", recognised)
    found = evaluate(model, [cut for cut, _ in CUTS], 100.0, None, Accelerator(cpu=True))
    assert found.cer == pytest.approx(cer)
    assert torch.tensor(found.macro_cer) == pytest.approx(sum(cer.values()) / 3)


@pytest.mark.parametrize(("by", "score"), [("cer", 0.2), ("bleu", 0.7), ("sum", 0.9)])
def test_the_best_weights_may_be_those_of_translation_or_of_both(by, score):
    found = Evaluation({"el": 0.1, "es": 0.3}, [], {"el": 40.0, "es": 20.0})
    assert found.badness(by) == pytest.approx(score)


def test_the_record_of_a_run_names_the_best_scores_so_far():
    progress = {"update": 4, "best_score": 0.8, "best_cer": 0.5, "best_update": 2, "stale": 1}
    assert note_score(progress, Evaluation({"el": 0.6}, [], {"el": 30.0}), "bleu")
    assert progress == {
        "update": 4, "best_score": pytest.approx(0.7), "best_cer": 0.6, "best_bleu": 30.0, "best_update": 4,
        "stale": 0, "evaluated": 4,
    }  # fmt: skip
    progress["update"] = 6
    assert not note_score(progress, Evaluation({"el": 0.1}, [], {"el": 29.0}), "bleu")
    assert (progress["best_update"], progress["stale"], progress["evaluated"]) == (4, 1, 6)
