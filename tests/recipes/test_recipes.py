"""What every recipe promises: run.sh is short and does nothing but name a config; stages and options go to masr."""

import hashlib
import os
import stat
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.parent.name for path in ROOT.glob("egs/*/run.sh"))
VERBS = ["prepare", "features", "vocab", "train", "decode", "score"]
FAKE = """#!/usr/bin/env bash
echo "{name} $*" >>"{log}"
[[ $1 != "${{FAIL_AT:-}}" ]]
"""


@pytest.fixture(params=RECIPES)
def recipe(request, copy_recipe, tmp_path):
    """A copy of a recipe whose ``masr`` and ``torchrun`` only note how they are called."""
    copy = copy_recipe(request.param)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("masr", "torchrun"):
        (tools / name).write_text(FAKE.format(name=name, log=tmp_path / "calls"))
        (tools / name).chmod(stat.S_IRWXU)
    copy.path = f"{tools}:{os.environ['PATH']}"
    return copy


@pytest.fixture
def calls(tmp_path):
    """``calls()``: what was called, a line each."""
    return lambda: (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def test_without_options_every_stage_runs_with_the_default_config(recipe, calls):
    result = recipe.run()
    assert result.returncode == 0
    confs = {line.split()[2] for line in calls()}
    assert [line.split()[:2] for line in calls()] == [["masr", verb] for verb in VERBS]
    assert len(confs) == 1 and (recipe.folder / confs.pop()).is_file()
    assert "--- stage 5: score" in result.stdout


def test_stages_config_force_and_overrides_are_passed_on(recipe, calls):
    options = ["--stage", "1", "--conf", "conf/x.yaml", "a.b=c", "--stop-stage", "2", "name=two words", "--force"]
    assert recipe.run(*options).returncode == 0
    assert calls() == [f"masr {verb} conf/x.yaml a.b=c name=two words --force" for verb in ("features", "vocab")]


def test_both_spellings_of_stop_stage_are_taken(recipe, calls):
    assert recipe.run("--stop_stage", "0").returncode == 0
    assert len(calls()) == 1


def test_several_processes_train_through_torchrun_and_only_train(recipe, calls):
    assert recipe.run("--stage", "2", "--stop-stage", "4", "--nproc", "2", "seed=7").returncode == 0
    called = calls()
    assert [line.split()[0] for line in called] == ["masr", "torchrun", "masr"]
    assert called[1].startswith("torchrun --standalone --nproc_per_node 2 -m masr.cli train ")
    assert called[1].endswith(" seed=7")


def test_a_stage_that_fails_stops_the_recipe(recipe, calls, monkeypatch):
    monkeypatch.setenv("FAIL_AT", "vocab")
    result = recipe.run()
    assert result.returncode != 0
    assert [line.split()[1] for line in calls()] == ["prepare", "features", "vocab"]


@pytest.mark.parametrize("option", ["--stagee", "-x", "conf/demo.yaml"])
def test_an_unknown_option_shows_the_usage_and_exits_with_2(recipe, calls, option):
    result = recipe.run(option)
    assert result.returncode == 2
    assert f"unknown option: {option}" in result.stderr
    assert "usage: ./run.sh" in result.stderr
    assert calls() == []


def test_help_shows_the_usage(recipe, calls):
    result = recipe.run("--help")
    assert result.returncode == 0
    assert "usage: ./run.sh" in result.stdout and "conf/" in result.stdout
    assert calls() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage"], "--stage wants a value"),
        (["--force", "--conf"], "--conf wants a value"),
        (["--stage", "six"], "stages are 0 to 5"),
        (["--stage", "6", "--stop-stage", "6"], "stages are 0 to 5"),
        (["--stop-stage", "9"], "stages are 0 to 5"),
        (["--stage", "-1"], "stages are 0 to 5"),
        (["--nproc", "many"], "--nproc wants a number of processes, found many"),
        (["--stage", "4", "--stop-stage", "3"], "nothing to do"),
    ],
)
def test_an_impossible_option_is_explained_before_anything_runs(recipe, calls, options, message):
    result = recipe.run(*options)
    assert result.returncode == 2
    assert f"run.sh: {message}" in result.stderr
    assert calls() == []


@pytest.mark.parametrize("name", RECIPES)
def test_run_sh_is_short_and_executable(name):
    script = ROOT / "egs" / name / "run.sh"
    assert len(script.read_text().splitlines()) <= 60
    assert os.access(script, os.X_OK)


def test_there_are_recipes():
    assert "freevoices" in RECIPES


def test_no_two_recipes_share_a_python_file():
    owners = defaultdict(set)
    for name in RECIPES:
        for path in (ROOT / "egs" / name).rglob("*.py"):
            owners[hashlib.sha256(path.read_bytes()).hexdigest()].add(name)
    assert [names for names in owners.values() if len(names) > 1] == []
