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
    """A copy of a recipe whose ``masr`` only notes how it is called; it has a ``conf/x.yaml``, too."""
    copy = copy_recipe(request.param)
    (copy.folder / "conf/x.yaml").write_text("")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "masr").write_text(FAKE.format(name="masr", log=tmp_path / "calls"))
    (tools / "masr").chmod(stat.S_IRWXU)
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


def test_values_may_follow_an_equals_sign(recipe, calls):
    assert recipe.run("--stage=3", "--stop-stage=4", "--conf=conf/x.yaml", "--nproc=2", "a.b=--c=d").returncode == 0
    assert calls() == ["masr train conf/x.yaml a.b=--c=d --nproc 2", "masr decode conf/x.yaml a.b=--c=d"]


def test_both_spellings_of_stop_stage_are_taken(recipe, calls):
    assert recipe.run("--stop_stage", "0").returncode == 0
    assert len(calls()) == 1


def test_only_training_is_told_the_number_of_processes(recipe, calls):
    assert recipe.run("--stage", "2", "--stop-stage", "4", "--nproc", "2", "seed=7").returncode == 0
    assert [line.split()[1] for line in calls()] == ["vocab", "train", "decode"]
    assert ["--nproc 2" in line for line in calls()] == [False, True, False]


def test_a_config_may_be_relative_to_the_folder_of_the_caller(recipe, calls, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/own.yaml").write_text("")
    for conf in ("mine/own.yaml", f"{tmp_path}/mine/own.yaml"):
        assert recipe.run("--stop-stage", "0", "--conf", conf, cwd=tmp_path).returncode == 0
    assert recipe.run("--stop-stage", "0", "--conf", "conf/x.yaml", cwd=tmp_path).returncode == 0
    own = f"masr prepare {tmp_path}/mine/own.yaml"
    assert calls() == [own, own, "masr prepare conf/x.yaml"]


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ("conf/y.yaml", "no such file in {folder}, nor in {caller}; the recipe has conf/"),
        ("x", "no such file in {folder}, nor in {caller}; did you mean conf/x.yaml?"),
        ("x.yaml", "no such file in {folder}, nor in {caller}; did you mean conf/x.yaml?"),
        ("/none/x.yaml", "no such file\n"),
    ],
)
def test_a_config_that_is_not_there_says_where_it_was_looked_for(recipe, calls, tmp_path, conf, message):
    result = recipe.run("--conf", conf, cwd=tmp_path)
    assert result.returncode == 2 and calls() == []
    assert f"run.sh: --conf {conf}: {message.format(folder=recipe.folder, caller=tmp_path)}" in result.stderr


def test_an_error_in_two_processes_is_one_line(copy_recipe, prepared):
    recipe = copy_recipe("freevoices")
    options = ["--stage=3", "--stop-stage=3", "--nproc=2", f"--conf={prepared.conf}", "train.frozen=[translator]"]
    result = recipe.run(*options)
    assert result.returncode == 1
    assert result.stderr == "masr: train.frozen: this model has no translator\n"


def test_a_stage_that_fails_stops_the_recipe(recipe, calls, monkeypatch):
    monkeypatch.setenv("FAIL_AT", "vocab")
    result = recipe.run()
    assert result.returncode != 0
    assert [line.split()[1] for line in calls()] == ["prepare", "features", "vocab"]


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--stagee", ""),
        ("--stagee=3", ""),
        ("-x", ""),
        ("-x=3", ""),
        ("--force=true", ""),
        ("=3", ""),
        ("conf/demo.yaml", " (a config is named by --conf conf/demo.yaml)"),
        ("--model.encoder.layers=4", " (options of the config are written without --: model.encoder.layers=4)"),
    ],
)
def test_an_unknown_option_shows_the_usage_and_exits_with_2(recipe, calls, option, hint):
    result = recipe.run(option)
    assert result.returncode == 2
    assert f"unknown option: {option}{hint}\n" in result.stderr
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
        (["--stage="], "--stage wants a value"),
        (["--stage=six"], "stages are 0 to 5"),
        (["--nproc=0"], "--nproc wants a number of processes, found 0"),
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
