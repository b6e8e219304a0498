"""masr's scans of Mamba-1 and Mamba-2 beside mambapy's parallel scan and mamba-ssm's reference, on a CPU.

    python3.11 -m venv .venv-mamba
    .venv-mamba/bin/pip install -c constraints.txt -e . -r benchmarks/requirements-mamba.txt
    MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE .venv-mamba/bin/pip install --no-cache-dir --no-deps \\
        --no-build-isolation -r benchmarks/requirements-mamba-source.txt
    .venv-mamba/bin/python benchmarks/selective_scan.py [--threads 1]

A pass is forward and backward of one scan, with gradients of all its inputs, from the same numbers; each gets them laid
out as its own model lays them out. All scans at all lengths take turns. That those of Mamba-1 agree in y and in every
gradient is checked first. Mamba-2 (state space duality) is another model: its rows say what the same width costs.
mamba-ssm's reference runs at one length: its time grows with the square of the length.

From 500 frames on, more than half of mambapy's time is the system's, which gives and takes back the memory of its large
tensors in every pass; GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=99999999999 makes the process
keep it.

L frames, D channels, N numbers of state for each channel, P channels of a Mamba-2 head.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from types import ModuleType

import torch
from measure import common_options, print_head, print_row, ratio_line, say_absent, seconds_in_turn
from torch import Tensor

from masr.nn.selective_scan import chunked_scan, selective_scan, state_space_duality

try:
    from mambapy.pscan import pscan
except ImportError:
    pscan = None

BATCH, CHANNELS, STATE, HEAD = 2, 512, 16, 64
LENGTHS, REFERENCE_LENGTH, SHORTEST = (75, 250, 500, 1000, 2000), 500, (75,)
MASR, PSCAN, REFERENCE = "masr, Mamba-1, N=16", "mambapy pscan, N=16", "mamba-ssm selective_scan_ref, N=16"
DUALITY = {16: "masr, Mamba-2, N=16", 64: "masr, Mamba-2, N=64"}
CHUNKED = {size: f"{name}, as products of matrices" for size, name in DUALITY.items()}  # masr's form for GPUs
# Nothing that is compared follows mambapy or the reference, which leave the caches full of their own.
TURNS = (PSCAN, REFERENCE, *CHUNKED.values(), DUALITY[64], MASR, DUALITY[16])
TOLERANCE = 1e-4
"""Largest difference between scans, as a share of the largest value."""

Pass = Callable[[], tuple[Tensor, ...]]
"""Forward and backward of a scan: y, then the gradients of its inputs."""


def load_reference() -> Callable[..., Tensor]:
    """mamba-ssm's own ``selective_scan_ref``, as installed.

    Its module also holds the CUDA scan and so imports the compiled kernel and a Triton one, and the package imports all
    its models; a CPU has none of that. What the reference never calls gets an empty module in its place.
    """
    spec = find_spec("mamba_ssm")
    if spec is None:
        sys.exit(f"mamba-ssm is missing; it has an environment of its own:\n{__doc__.split('A pass')[0]}")
    layer_norm = ModuleType("mamba_ssm.ops.triton.layer_norm")
    layer_norm._layer_norm_fwd = None  # type: ignore[attr-defined]
    sys.modules["mamba_ssm"] = module_from_spec(spec)  # knows where its parts are, but is not executed
    sys.modules |= {layer_norm.__name__: layer_norm, "selective_scan_cuda": ModuleType("selective_scan_cuda")}
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    return selective_scan_ref


def mambapy_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """What mambapy's ``MambaBlock.selective_scan`` does, without the skip connection that it adds."""
    decay = torch.exp(dt.unsqueeze(-1) * A)
    written = dt.unsqueeze(-1) * B.unsqueeze(2) * x.unsqueeze(-1)
    return (pscan(decay, written) @ C.unsqueeze(-1)).squeeze(3)


def a_pass(scan: Callable[..., Tensor], inputs: list[Tensor], y_gradient: Tensor) -> Pass:
    """Forward and backward of ``scan``; the first call's values are what is compared."""
    leaves = [value.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for value in inputs]
    y_gradient = y_gradient.contiguous()

    def run() -> tuple[Tensor, ...]:
        y = scan(*leaves)
        return y.detach(), *torch.autograd.grad(y, leaves, y_gradient)

    return run


def mamba1(length: int, with_peers: bool) -> dict[str, Pass]:
    """The scans of Mamba-1 on one set of inputs, with steps and rates as a model has them at its beginning."""
    x, y_gradient = torch.randn(2, BATCH, length, CHANNELS).unbind()
    dt = torch.empty(BATCH, length, CHANNELS).uniform_(1e-3, 0.1)
    A = -torch.arange(1.0, STATE + 1).expand(CHANNELS, STATE)
    inputs = [x, dt, A, *torch.randn(2, BATCH, length, STATE).unbind()]
    passes = {MASR: a_pass(lambda *values: selective_scan(*values)[0], inputs, y_gradient)}
    if with_peers:
        passes[PSCAN] = a_pass(mambapy_scan, inputs, y_gradient)
    if with_peers and length == REFERENCE_LENGTH:  # time last
        channels_first = [value.mT if value.dim() == 3 else value for value in inputs]
        passes[REFERENCE] = a_pass(load_reference(), channels_first, y_gradient.mT)
    return passes


def mamba2(length: int, state: int) -> dict[str, Pass]:
    """masr's scans of Mamba-2 on as many channels."""
    heads = CHANNELS // HEAD
    x, y_gradient = torch.randn(2, BATCH, length, heads, HEAD).unbind()
    dt = torch.empty(BATCH, length, heads).uniform_(1e-3, 0.1)
    inputs = [x, dt, -torch.linspace(1, 16, heads), *torch.randn(2, BATCH, length, state).unbind()]
    first = torch.zeros(BATCH, heads, HEAD, state)
    return {
        DUALITY[state]: a_pass(lambda *values: state_space_duality(*values)[0], inputs, y_gradient),
        CHUNKED[state]: a_pass(lambda *values: chunked_scan(*values, first)[0], inputs, y_gradient),
    }


def check(passes: dict[str, Pass], length: int) -> None:
    """Ends the benchmark when y or a gradient of two scans differ."""
    expected = passes[MASR]()
    for name, run in passes.items():
        for what, ours, theirs in zip(("y", "x", "dt", "A", "B", "C"), expected, run(), strict=True):
            theirs = theirs.mT if name == REFERENCE and what != "A" else theirs
            difference = float((ours - theirs).abs().max() / theirs.abs().max())
            if not difference < TOLERANCE:
                sys.exit(
                    f"L={length}: {what if what == 'y' else f'gradient of {what}'} of {name} is {difference:.1e} off"
                )


def print_growth(taken: dict[tuple[int, str], float]) -> None:
    """How many times longer twice the frames take."""
    steps = [(500, 1000), (1000, 2000)]
    names = [name for name in (MASR, PSCAN, *DUALITY.values()) if (steps[-1][1], name) in taken]
    print()
    print_head(["time grows", *(f"L {before} -> {after}" for before, after in steps)])
    for name in names:
        print_row([name, *(f"{taken[after, name] / taken[before, name]:.2f} x" for before, after in steps)])
    print()


def ratio_lines(taken: dict[tuple[int, str], float]) -> list[str]:
    def against(what: str, peer: str, ours: str, theirs: str) -> list[str]:
        lengths = [length for length in LENGTHS if (length, theirs) in taken]
        return [ratio_line(f"{what}-L{n}", peer, taken[n, ours], taken[n, theirs]) for n in lengths]

    return [
        *against("selective-scan", "mambapy-pscan", MASR, PSCAN),
        *against("selective-scan", "mamba-ssm-selective_scan_ref", MASR, REFERENCE),
        *against("mamba2-scan-N16", "masr-selective-scan", DUALITY[16], MASR),
    ]


def main() -> None:
    arguments = common_options(__doc__, repeats=9).parse_args()
    lengths, with_peers = LENGTHS, pscan is not None
    if arguments.shortest:
        lengths, with_peers, arguments.repeats = SHORTEST, False, 1
    if not with_peers:
        say_absent("mambapy and mamba-ssm", "selective_scan")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    contenders = {}
    for length in lengths:
        passes = mamba1(length, with_peers)
        check(passes, length)
        for state in DUALITY:
            passes |= mamba2(length, state)
        contenders |= {(length, name): passes[name] for name in TURNS if name in passes}

    taken = seconds_in_turn(contenders, arguments.repeats)
    print_head(["L", "threads", "scan", "ms", "frames a second"])
    for (length, name), seconds in sorted(taken.items()):
        print_row([length, arguments.threads, name, f"{1000 * seconds:.1f}", f"{BATCH * length / seconds:.0f}"])
    print_growth(taken)
    print("\n".join(ratio_lines(taken)))


if __name__ == "__main__":
    main()
