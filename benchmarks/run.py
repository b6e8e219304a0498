"""Every benchmark with its peers set up: ``make bench``, or ``make bench ONLY=features``.

    python benchmarks/run.py [name ...]

A peer's environment is made from its requirements file when it is missing, and brought up to date when the file has
changed. Packages that must be built there stand in a file of their own, ``requirements-<peers>-source.txt``. Where the
benchmark itself runs there, masr is installed there too, with all that it needs. Where it cannot be made, masr is
measured alone. Output is passed on as it comes; the ``ratio`` lines of all benchmarks follow at the end.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measure import ROOT

HERE = Path(__file__).resolve().parent


@dataclass
class Benchmark:
    """A script, the environment of its peers (``.venv-<peers>``) and whether the script itself runs there."""

    peers: str | None = None
    runs_there: bool = False


BENCHMARKS = {
    "ctc_search": Benchmark("pyctcdecode"),
    "encoders": Benchmark(),
    "features": Benchmark(),
    "hierarchical_softmax": Benchmark(),
    "lattice": Benchmark("pyctcdecode"),
    "recognition": Benchmark("peers"),
    "selective_scan": Benchmark("mamba", runs_there=True),
    "silence": Benchmark(),
    "soup": Benchmark(),
    "training": Benchmark(),
    "whisper": Benchmark(),
}
WITHOUT_KERNELS = {"MAMBA_SKIP_CUDA_BUILD": "TRUE", "MAMBA_FORCE_BUILD": "TRUE"}
"""Environment in which mamba-ssm is built as Python alone, on any machine."""


Install = tuple[list[str], list[Path]]
"""Arguments of one ``pip install``, and the files on which its result depends."""


def installs(benchmark: Benchmark) -> list[Install]:
    """What pip is asked for in the environment of a benchmark's peers, one call after another."""
    listed = HERE / f"requirements-{benchmark.peers}.txt"
    wanted, files = ["--requirement", str(listed)], [listed]
    if benchmark.runs_there:
        constraints = ROOT / "constraints.txt"
        wanted = ["--constraint", str(constraints), "--editable", str(ROOT), *wanted]
        files = [constraints, ROOT / "pyproject.toml", *files]
    calls = [(wanted, files)]
    source = HERE / f"requirements-{benchmark.peers}-source.txt"
    if source.exists():  # built with the torch that is there by then, not with one of its own
        # pip must not keep what it builds: it would give it to whoever asks for the package with its kernels.
        options = ["--no-cache-dir", "--no-deps", "--no-build-isolation", "--requirement", str(source)]
        calls.append((options, [source]))
    return calls


def set_up(benchmark: Benchmark) -> Path:
    """The Python of ``.venv-<peers>``, with all that is wanted there; CalledProcessError where it cannot be had."""
    folder, calls = ROOT / f".venv-{benchmark.peers}", installs(benchmark)
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = "".join(file.read_text() for _, files in calls for file in files)
    if installed.exists() and installed.read_text() == wanted:
        return python
    print(f"installing the peers of {benchmark.peers} into {folder.name} ...", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    for arguments, _ in calls:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True, env=os.environ | WITHOUT_KERNELS)
    installed.write_text(wanted)
    return python


def run(name: str, peers_python: Path | None) -> list[str]:
    """The ``ratio`` lines of one benchmark; CalledProcessError when it fails."""
    there = peers_python is not None and BENCHMARKS[name].runs_there
    print(f"\n== {name}", flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    ratios, command = [], [str(peers_python) if there else sys.executable, str(HERE / f"{name}.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("ratio "):
                ratios.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return ratios


def describe(error: subprocess.CalledProcessError) -> str:
    return f"{' '.join(map(str, error.cmd))} ended with status {error.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    ratios: list[str] = []
    failed: list[str] = []
    for name in names:
        peers_python = None
        try:
            if BENCHMARKS[name].peers:
                peers_python = set_up(BENCHMARKS[name])
        except subprocess.CalledProcessError as error:
            failed.append(f"{name}: without its peers: {describe(error)}")
        try:
            ratios += run(name, peers_python)
        except subprocess.CalledProcessError as error:
            failed.append(f"{name}: {describe(error)}")
    print(f"\n== ratios (above 1: masr is better)\n{''.join(ratios)}", end="")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
