"""Every benchmark with its peers set up: ``make bench``, or ``make bench ONLY=features``.

    python benchmarks/run.py [name ...]

A peer's environment is made from its requirements file when it is missing, and brought up to date when the file has
changed. Output is passed on as it comes; the ``ratio`` lines of all benchmarks follow at the end.
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
    "features": Benchmark(),
    "lattice": Benchmark("pyctcdecode"),
    "recognition": Benchmark("peers"),
    "training": Benchmark("transformers", runs_there=True),
}


def set_up(peers: str) -> Path:
    """The Python of ``.venv-<peers>``, with the packages of its requirements file."""
    folder, requirements = ROOT / f".venv-{peers}", HERE / f"requirements-{peers}.txt"
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if installed.exists() and installed.read_text() == requirements.read_text():
        return python
    print(f"installing {requirements.name} into {folder.name} ...", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    installed.write_text(requirements.read_text())
    return python


def run(name: str) -> list[str]:
    """The ``ratio`` lines of one benchmark; CalledProcessError when it or its set-up fails."""
    benchmark = BENCHMARKS[name]
    peers_python = set_up(benchmark.peers) if benchmark.peers else None
    python = str(peers_python) if peers_python and benchmark.runs_there else sys.executable
    print(f"\n== {name}", flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    ratios, command = [], [python, str(HERE / f"{name}.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("ratio "):
                ratios.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; all by default")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    ratios, failed = [], []
    for name in names:
        try:
            ratios += run(name)
        except subprocess.CalledProcessError as error:
            failed.append(f"{name}: {' '.join(map(str, error.cmd))} ended with status {error.returncode}")
    print(f"\n== ratios (above 1: masr is better)\n{''.join(ratios)}", end="")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
