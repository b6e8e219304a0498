"""Every benchmark runs in its shortest form, masr's half alone, and prints its figures, whatever they are."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HERE = ROOT / "benchmarks"
FIGURES = {
    "ctc_search": ["| ctc-prefix-beam | ", " | masr | "],
    "encoders": ["| recognition | Conformer | ", "| training | Mamba-2, both directions | "],
    "features": ["| masr | 1 | 11 | "],
    "hierarchical_softmax": ["| target path | ", "ratio target-path flat-softmax "],
    "lattice": ["| masr HLG | 50 | ", "their 50 best: real-time factor "],
    "recognition": ["| masr, file by file | 1 | 11 | ", "| masr, a language at once | "],
    "selective_scan": ["| 75 | 1 | masr, Mamba-1, N=16 | ", "ratio mamba2-scan-N16-L75 masr-selective-scan "],
    "silence": ["| alone | ", "| digital silence | 0 | 0 | ", "ratio silence clips-alone "],
    "soup": ["| plain | ", "| VM | "],
    "training": ["| 2x1s | 1 | masr | ", "| 2x1s | 1 | masr, with subsampling | "],
    "whisper": ["| training | masr, clip | ", "| greedy | masr, clip | "],
}
"""What a line of each begins with, or has in it, before a figure."""
PEERS = {"ctc_search", "features", "lattice", "recognition", "selective_scan", "training"}
"""Benchmarks that say that a peer is missing."""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """What the scripts share can be imported, as when they are run."""
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def output_of(monkeypatch, capsys):
    """``output_of("training", "--shortest")``: what a benchmark prints; it runs in this process, which has torch."""

    def run(name: str, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
        runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", FIGURES)
def test_the_shortest_form_prints_its_figures(output_of, tmp_path, name):
    options = ["--recordings", str(tmp_path)] if name == "recognition" else []
    printed = output_of(name, "--shortest", *options)
    for begin in FIGURES[name]:
        assert re.search(re.escape(begin) + r"\d", printed), printed
    assert ("masr alone, without " in printed) == (name in PEERS)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("encoders", ["--memory-of", "conformer", "training", "1"]),
        ("soup", ["--memory-of", "plain", "--seconds", "8"]),
    ],
)
def test_memory_is_a_number(output_of, name, options):
    assert float(output_of(name, *options)) >= 0  # beyond what this process has had before


def test_every_script_that_compares_is_run_by_make_bench_and_tested():
    scripts = {
        path.stem for path in HERE.glob("*.py") if "ratio " in path.read_text() or "ratio_line" in path.read_text()
    }
    assert FIGURES.keys() == scripts - {"measure", "run"}
    assert importlib.import_module("run").BENCHMARKS.keys() == FIGURES.keys()
    table = (HERE / "README.md").read_text()
    assert all(f"| `{name}.py` | " in table for name in FIGURES)


def test_where_a_benchmark_runs_masr_is_installed_with_what_it_needs():
    """masr in an environment with a list of its own stops at the first import that the list forgot."""
    run = importlib.import_module("run")
    for name, benchmark in run.BENCHMARKS.items():
        if benchmark.peers is None:
            continue
        [arguments, files], *_ = run.installs(benchmark)
        assert (HERE / f"requirements-{benchmark.peers}.txt").is_file(), name
        assert (arguments[:4] == ["--constraint", f"{ROOT}/constraints.txt", "--editable", str(ROOT)]) is (
            benchmark.runs_there
        )
        assert (ROOT / "pyproject.toml" in files) is benchmark.runs_there


def test_masr_is_measured_alone_where_its_peers_cannot_be_had(monkeypatch, capfd, tmp_path):
    """Without a network, say: pip's failure is reported at the end, and what can be measured is."""
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "BENCHMARKS", {"some": run.Benchmark("peer"), "other": run.Benchmark()})
    (tmp_path / "requirements-peer.txt").write_text("--no-index\nthere-is-no-such-package\n")
    (tmp_path / "some.py").write_text("print('masr alone')")
    (tmp_path / "other.py").write_text("print('ratio a b 2.00')")
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises(SystemExit) as end:
        run.main()
    assert str(end.value.code).startswith("some: without its peers: ") and "\n" not in str(end.value.code)
    printed = capfd.readouterr().out
    assert "masr alone" in printed and printed.endswith("ratio a b 2.00\n")
