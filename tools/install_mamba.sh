#!/usr/bin/env bash
# Installs mamba-ssm, whose CUDA kernel masr takes for Mamba-1 layers on a GPU: the wheel of its release that matches the
# torch and Python of this environment or, where there is none, a build with nvcc.
# masr works without mamba-ssm: its own scans run on any device.
#
#   tools/install_mamba.sh [PYTHON]      (default: .venv/bin/python)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${1:-$root/.venv/bin/python}
version=2.3.2.post1

give_up() {
  echo "install_mamba.sh: $1." >&2
  echo "  masr works without mamba-ssm: its own scans run on any device." >&2
  exit 1
}

facts=$("$python" -c '
import sys, torch
from torch.utils.cpp_extension import CUDA_HOME
abi = str(torch._C._GLIBCXX_USE_CXX11_ABI).upper()
print(torch.__version__.split("+")[0], f"cp{sys.version_info[0]}{sys.version_info[1]}", abi,
      torch.version.cuda or "none", torch.cuda.is_available(), CUDA_HOME or "none")') || give_up "$python cannot import torch"
read -r torch tag abi cuda gpu cuda_home <<<"$facts"
[[ $cuda != none ]] || give_up "torch $torch is built without CUDA, which is all that mamba-ssm's kernel runs on"
[[ $gpu == True ]] || give_up "torch $torch (CUDA $cuda) finds no GPU, which is all that mamba-ssm's kernel runs on"

# Names look like mamba_ssm-2.3.2.post1+cu12torch2.9cxx11abiTRUE-cp311-cp311-linux_x86_64.whl; an address writes "+" as %2B.
name=mamba_ssm-$version%2Bcu${cuda%%.*}torch${torch%.*}cxx11abi$abi-$tag-$tag-linux_$(uname -m).whl
wheel=https://github.com/state-spaces/mamba/releases/download/v$version/$name
if curl --silent --head --location --fail --max-time 60 --output /dev/null "$wheel"; then
  what=("$wheel")
elif [[ -x $cuda_home/bin/nvcc ]]; then
  echo "install_mamba.sh: no ready-made wheel at $wheel; building with $cuda_home/bin/nvcc (many minutes) ..."
  "$python" -m pip install setuptools wheel packaging ninja
  export MAMBA_FORCE_BUILD=TRUE
  # pip's cache may hold one that was built for another torch, or for benchmarks/ without the kernel.
  what=(--no-cache-dir --no-build-isolation "mamba-ssm==$version")
else
  give_up "there is no wheel at $wheel (torch $torch, CUDA $cuda, $tag), or it cannot be reached, and no nvcc to build one"
fi
# Without what it declares: tilelang and quack-kernels are for Mamba-3, and torch for CUDA brings its own triton.
"$python" -m pip install --force-reinstall --no-deps "${what[@]}"
"$python" -m pip install einops transformers
"$python" -c '
import sys, torch
from masr.nn.selective_scan import kernel_problem, selective_scan
if problem := kernel_problem():
    sys.exit(f"install_mamba.sh: mamba-ssm: {problem}")
inputs = [torch.rand(shape) for shape in ((1, 9, 8), (1, 9, 8), (8, 4), (1, 9, 4), (1, 9, 4))]
inputs[2].neg_()
torch.testing.assert_close(selective_scan(*(v.cuda() for v in inputs))[0].cpu(), selective_scan(*inputs)[0])
print("mamba-ssm works")'
