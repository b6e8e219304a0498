"""The command line: instant help, and errors that are one message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from masr import cli
from masr.config import Config
from masr.config_files import load_config

MASR = [sys.executable, "-m", "masr.cli"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MASR, *arguments], capture_output=True, text=True, cwd=cwd)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    """Runs ``masr <arguments>`` in this process; what it exits with (a message is printed, with status 1)."""
    monkeypatch.setattr(sys, "argv", ["masr", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_help_imports_neither_torch_nor_lhotse():
    program = """
import sys
from masr.cli import app
try:
    app(["--help"])
finally:
    heavy = {"torch", "lhotse", "numpy", "pydantic", "omegaconf"} & set(sys.modules)
    sys.stderr.write(f"heavy: {sorted(heavy)}")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stderr.endswith("heavy: []")
    verbs = ["prepare", "features", "vocab", "train", "decode", "score", "config", "transcribe"]
    assert all(verb in result.stdout for verb in verbs)


def test_without_a_verb_it_shows_the_help():
    result = run()
    assert "Usage:" in result.stdout + result.stderr
    assert result.returncode == 2


def test_config_prints_what_is_read_back(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.yaml").write_text("train: {updates: 5}\n")
    assert call(monkeypatch, "config", str(tmp_path / "a.yaml"), "seed=7", "name=other") == 0
    (tmp_path / "resolved.yaml").write_text(capsys.readouterr().out)
    resolved = load_config(tmp_path / "resolved.yaml")
    assert (resolved.name, resolved.seed, resolved.train.updates) == ("other", 7, 5)


def test_config_prints_the_schema(monkeypatch, capsys):
    assert call(monkeypatch, "config", "--schema") == 0
    schema, own = json.loads(capsys.readouterr().out), Config.model_json_schema()
    assert schema["$defs"] == own["$defs"] and schema["properties"].keys() == own["properties"].keys() | {"extends"}
    assert "required" not in schema  # else an editor would mark every shipped config, none of which has a name


def test_a_user_error_is_one_message_and_exit_code_1(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a.yaml").write_text("")
    result = run("config", "conf/a.yaml", "train.updats=1", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("masr: command line: train.updats: unknown key; did you mean train.updates?")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("verb", ["prepare", "features", "vocab", "train", "decode", "score", "config"])
def test_every_verb_explains_a_missing_config(verb, monkeypatch, workdir):
    message = call(monkeypatch, verb, "conf/none.yaml")
    assert str(message).startswith(f"masr: conf/none.yaml: no such file in {workdir.resolve()}/conf ")


@pytest.mark.parametrize(
    ("verb", "way_out"),
    [
        ("prepare", "set corpus.path="),
        ("features", "run `masr prepare`"),
        ("vocab", "run `masr prepare`"),
        ("train", "run `masr prepare`"),
        ("decode", "train it with `masr train`"),
        ("score", "run `masr decode`"),
    ],
)
def test_a_stage_before_its_predecessor_names_the_way_out(verb, way_out, workdir, monkeypatch):
    (workdir / "a.yaml").write_text("corpus: {path: nowhere}\n")
    message = call(monkeypatch, verb, "a.yaml")
    assert str(message).startswith("masr: ")
    assert way_out in str(message)


def test_config_without_a_file_says_what_it_wants(monkeypatch):
    assert call(monkeypatch, "config") == "masr: name a config file, or ask for --schema"


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    """Only what masr itself raises is for the user; an error from inside a library is not hidden."""
    (tmp_path / "a.yaml").write_text("")
    monkeypatch.setattr("masr.config_files.config_yaml", lambda *_: json.loads("{"))
    monkeypatch.setattr(sys, "argv", ["masr", "config", str(tmp_path / "a.yaml")])
    monkeypatch.setattr("masr.config_files.load_config", lambda *_: None)
    with pytest.raises(json.JSONDecodeError):
        cli.main()
