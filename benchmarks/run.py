"""Every benchmark with its peers set up: ``make bench``, or ``make bench ONLY=features``.

    python benchmarks/run.py [name ...]

A peer's environment is made from its requirements file when it is missing, and brought up to date when the file has
changed. Packages that must be built there stand in a file of their own, ``requirements-<peers>-source.txt``. Output is
passed on as it comes; the ``ratio`` lines of all benchmarks follow at the end.
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
    "soup": Benchmark(),
    "training": Benchmark("transformers", runs_there=True),
}
WITHOUT_KERNELS = {"MAMBA_SKIP_CUDA_BUILD": "TRUE", "MAMBA_FORCE_BUILD": "TRUE"}
"""Environment in which mamba-ssm is built as Python alone, on any machine."""


def requirements(peers: str) -> dict[Path, list[str]]:
    """The requirements files of an environment, in the order in which pip takes them, and its options for each."""
    files: dict[Path, list[str]] = {HERE / f"requirements-{peers}.txt": []}
    source = HERE / f"requirements-{peers}-source.txt"
    if source.exists():  # built with the torch that is there by then, not with one of its own
        # pip must not keep what it builds: it would give it to whoever asks for the package with its kernels.
        files[source] = ["--no-cache-dir", "--no-deps", "--no-build-isolation"]
    return files


def set_up(peers: str) -> Path:
    """The Python of ``.venv-<peers>``, with the packages of its requirements files."""
    folder, files = ROOT / f".venv-{peers}", requirements(peers)
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = "".join(file.read_text() for file in files)
    if installed.exists() and installed.read_text() == wanted:
        return python
    print(f"installing {', '.join(file.name for file in files)} into {folder.name} ...", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for file, options in files.items():
        command = [*pip, *options, "--requirement", str(file)]
        subprocess.run(command, check=True, env=os.environ | WITHOUT_KERNELS)
    installed.write_text(wanted)
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
