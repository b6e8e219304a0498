"""Levels of objectives: what each counts, and what is refused."""

import pytest
import torch

from masr.config import Soup as Options
from masr.soup.levels import Soup

OBJECTIVES = ["asr/cs", "asr/nl", "st/cs", "st/nl", "cpc"]
PENALTIES = {"mid": {"start": 0.1, "rate": 0.02, "cap": 1.5}, "low": {"start": 0.0, "rate": 0.02, "cap": 1.5}}


def soup(*levels: dict, objectives=OBJECTIVES) -> Soup:
    return Soup(Options.model_validate({"levels": list(levels)}), objectives)


def multilevel(top: str, middle: str) -> Soup:
    return soup(
        {"objectives": [top], "weights": "modo"},
        {"objectives": [middle], "weights": "modo", "penalty": PENALTIES["mid"]},
        {"objectives": ["cpc"], "penalty": PENALTIES["low"]},
    )


def test_levels_have_weights_of_their_own_and_penalties_multiply():
    found = multilevel("asr/*", "st/*").coefficients(epoch=10)
    assert found == pytest.approx({"asr/cs": 0.5, "asr/nl": 0.5, "st/cs": 0.15, "st/nl": 0.15, "cpc": 0.3 * 0.2})
    assert multilevel("asr/*", "st/*").coefficients(0)["cpc"] == 0, "eta = 0 removes what it is the penalty of"
    assert multilevel("asr/*", "st/*").coefficients(1000)["st/cs"] == 0.75, "1.5 is the cap"


def test_the_orders_of_the_paper_swap_the_two_tasks():
    """USA: recognition on top, translation is penalised. UAS: the other way round (table 4)."""
    usa, uas = (multilevel(*order).coefficients(7) for order in (("asr/*", "st/*"), ("st/*", "asr/*")))
    other = {"asr": "st", "st": "asr"}
    for name, value in usa.items():
        task, _, language = name.partition("/")
        assert value == uas[f"{other.get(task, task)}{'/' * bool(language)}{language}"]


def test_levels_by_language():
    found = soup(
        {"objectives": ["*/cs"]}, {"objectives": ["*/nl"], "penalty": {"start": 0.5}},
        {"objectives": ["cpc"], "penalty": {"start": 0.0}},
    ).coefficients(0)  # fmt: skip
    assert found == {"asr/cs": 0.5, "st/cs": 0.5, "asr/nl": 0.25, "st/nl": 0.25, "cpc": 0.0}


def test_one_task_can_have_a_scheduled_factor_of_its_own():
    scales = {"st/*": {"start": 0.1, "rate": 0.1, "cap": 1.5}}
    level = {"objectives": ["asr/*", "st/*"], "weights": "modo", "scales": scales}
    found = soup(level, {"objectives": ["cpc"]}).coefficients(4)
    assert found == pytest.approx({"asr/cs": 0.25, "asr/nl": 0.25, "st/cs": 0.125, "st/nl": 0.125, "cpc": 1.0})


def test_static_weights_are_scaled_to_one():
    static = {"asr/cs": 3.0, "*/nl": 1.0, "st/cs": 0.0, "cpc": 5.0}
    found = soup({"objectives": ["*"], "weights": "static", "static": static}).coefficients(0)
    assert found == pytest.approx({"asr/cs": 0.3, "asr/nl": 0.1, "st/cs": 0.0, "st/nl": 0.1, "cpc": 0.5})


def test_a_step_of_modo_favours_what_the_others_are_against():
    found = multilevel("asr/*", "st/*")
    found.step(found.levels[0], torch.tensor([3.0, -3.0]))
    assert found.levels[0].weights[1] > 0.5 > found.levels[0].weights[0]
    assert found.levels[1].weights.tolist() == [0.5, 0.5]
    again = multilevel("asr/*", "st/*")
    again.load_state_dict(found.state_dict())
    assert again.coefficients(3) == found.coefficients(3)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([{"objectives": ["asr/*", "st/*"]}], "no level has cpc"),
        ([{"objectives": ["*"]}, {"objectives": ["cpc"]}], "cpc in more than one level"),
        ([{"objectives": ["*", "mt/*"]}], "mt/\\* fits none of asr/cs"),
        ([{"objectives": ["*"], "weights": "Modo"}], "weights=Modo: unknown"),
        ([{"objectives": ["*"], "weights": "static", "static": {"asr/*": 1.0}}], "0 patterns fit st/cs"),
        ([{"objectives": ["*"], "weights": "static", "static": {"*": 0.0}}], "are 0"),
        ([{"objectives": ["*"], "static": {"*": 1.0}}], "without effect"),
        ([{"objectives": ["*"], "penalty": {"start": 0.5}}], "the top level has no penalty"),
        (
            [{"objectives": ["asr/*", "cpc"], "scales": {"st/*": {}}}, {"objectives": ["st/*"]}],
            "st/\\* fits none of asr",
        ),
        ([{"objectives": ["*"]}, {"objectives": ["cpc"], "penalty": {"start": 2.0}}], "start=2 is above cap=1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        soup(*levels)


@pytest.mark.parametrize("step", [0.01, 0.001])
def test_a_weight_that_noise_drove_to_nothing_comes_back(step):
    """300 steps are 600 updates at the default pace."""
    found = soup({"objectives": ["asr/*", "st/*"], "weights": "modo"}, {"objectives": ["cpc"], "penalty": {"start": 0}})
    found.options = found.options.model_copy(update={"step": step})
    level = found.levels[0]
    found.step(level, torch.tensor([2.0, 0, 0, 0]) / step)
    assert level.weights.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    random = torch.Generator().manual_seed(0)
    for _ in range(300):
        found.step(level, 0.1 * torch.randn(4, generator=random))
    assert level.weights.tolist() == pytest.approx([0.25] * 4, abs=0.05)


def test_the_pull_of_older_configs_is_kept():
    options = {"levels": [{"objectives": ["*"], "weights": "modo"}], "pull": 0.001}
    found = Soup(Options.model_validate(options), OBJECTIVES[:2])
    found.levels[0].weights = torch.tensor([1.0, 0.0])
    found.step(found.levels[0], torch.zeros(2))
    assert found.levels[0].weights[1].item() == pytest.approx(0.01 * 0.001 / 2, rel=0.01)
