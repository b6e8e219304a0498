"""What is installed, what is active, and what the optional fast paths would need: ``python tools/check_install.py``."""

import importlib.util
import platform
from importlib.metadata import PackageNotFoundError, version

REQUIRED = (
    "torch", "lhotse", "accelerate", "sentencepiece", "safetensors", "kaldialign", "kaldifst", "kaldi-decoder",
    "pydantic", "omegaconf",
)  # fmt: skip


def installed(package: str) -> str | None:
    """Version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def state_spaces() -> str:
    """Which scan Mamba-1 layers use, and why it is not mamba-ssm's."""
    from masr.nn.selective_scan import kernel_problem

    problem = kernel_problem()
    if problem:
        return f"masr's own scan is active; mamba-ssm: {problem}"
    return "mamba-ssm's kernel is active on the GPU; masr's own scan on the CPU"


def main() -> int:
    """Prints one line a package; 1 when a required one is missing."""
    print(f"Python {platform.python_version()} on {platform.machine()}")
    missing = [package for package in REQUIRED if installed(package) is None]
    for package in REQUIRED:
        print(f"  {package:<14} {installed(package) or 'missing: run `make install`'}")
    if importlib.util.find_spec("torch"):
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        print(f"  devices        {', '.join(gpus) or f'CPU only, {torch.get_num_threads()} threads'}")
    if not missing:
        from masr.decode.lattice import k2_problem, load_backend

        active = load_backend("auto").__name__.rpartition(".")[2]
        print(f"  lattices       {active} is active; {k2_problem() or 'k2 can be used'}")
        print(f"  state spaces   {state_spaces()}")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
