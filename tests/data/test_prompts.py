"""Prompts: the right language is in them as often as it should, wrong ones as drawn."""

import pickle
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from masr.config import Decode, Prompts
from masr.data.prompts import TrainingPrompts, prompts_of

LANGUAGES = ["be", "cs", "nl", "ru"]


@dataclass
class Cut:
    id: str
    language: str

    @property
    def supervisions(self):
        return [SimpleNamespace(language=self.language)]


CUTS = [Cut(f"utterance-{i}", LANGUAGES[i % 4]) for i in range(2000)]
RIGHT = torch.tensor([[code == cut.language for code in LANGUAGES] for cut in CUTS])


def prompts(seed: int = 1, **options) -> torch.Tensor:
    prompt = TrainingPrompts(Prompts(**options), LANGUAGES, (seed,))
    return torch.stack([prompt(cut) for cut in CUTS])


def test_by_default_every_language_is_allowed():
    assert prompts().all()


def test_shares_of_prompts_are_as_asked():
    drawn = prompts(all=0.3, one=0.2, wrong=0.25)
    assert drawn[RIGHT].all()
    number = drawn.sum(1)
    assert (number == 4).float().mean().item() == pytest.approx(0.3 + 0.5 * 0.25**3, abs=0.03)
    assert (number == 1).float().mean().item() == pytest.approx(0.2 + 0.5 * 0.75**3, abs=0.03)
    assert drawn[~RIGHT].float().mean().item() == pytest.approx(0.3 + 0.5 * 0.25, abs=0.03)


def test_prompts_are_drawn_anew_with_each_seed_and_only_then():
    options = {"all": 0.3, "wrong": 0.5}
    assert torch.equal(prompts(**options), prompts(**options))
    assert not torch.equal(prompts(**options), prompts(seed=2, **options))


def test_only_the_right_language():
    assert torch.equal(prompts(all=0.0, one=1.0), RIGHT)


def test_shares_above_one_are_refused():
    with pytest.raises(ValueError, match="all=0.7 and one=0.4 are more than all"):
        Prompts(all=0.7, one=0.4)


@pytest.mark.parametrize(("kind", "right", "number"), [("all", True, 4), ("oracle", True, 1), ("oracle+2", True, 3),
                                                       ("wrong", False, 1), ("wrong+1", False, 2)])  # fmt: skip
def test_prompts_of_decoding(kind, right, number):
    prompt = prompts_of(kind, LANGUAGES)
    found = torch.stack([prompt(cut) for cut in CUTS])
    assert (found.sum(1) == number).all() and (found[RIGHT] == right).all()
    assert torch.equal(found, torch.stack([prompts_of(kind, LANGUAGES)(cut) for cut in CUTS]))
    if number > right:  # each wrong language has its turn
        assert found[~RIGHT].float().mean().item() == pytest.approx((number - right) / 3, abs=0.03)


@pytest.mark.parametrize(
    "prompt", [TrainingPrompts(Prompts(all=0.3), LANGUAGES, (1,)), prompts_of("oracle+2", LANGUAGES)]
)
def test_prompts_reach_processes_that_are_started_anew(prompt):
    again = pickle.loads(pickle.dumps(prompt))
    assert all(torch.equal(again(cut), prompt(cut)) for cut in CUTS[:50])


def test_more_wrong_languages_than_there_are():
    with pytest.raises(ValueError, match="oracle\\+4: there are not 4 wrong languages; the model knows be, cs"):
        prompts_of("oracle+4", LANGUAGES)


@pytest.mark.parametrize("kind", ["one", "oracle+", "oracle+0", "all+1", ""])
def test_unknown_kinds_are_refused(kind):
    with pytest.raises(ValueError, match="prompts"):
        Decode(prompts=[kind])
