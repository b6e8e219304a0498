#!/usr/bin/env bash
# Installs the build of k2 that matches the torch and Python of this environment, from k2's own index of wheels.
# masr works without k2: decode.lattice.backend=kaldi runs on any CPU.
#
#   tools/install_k2.sh [PYTHON]      (default: .venv/bin/python)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${1:-$root/.venv/bin/python}

read -r torch kind tag < <("$python" -c '
import sys, torch
cuda = torch.version.cuda
print(torch.__version__.split("+")[0], f"cuda{cuda}" if cuda else "cpu", f"cp{sys.version_info[0]}{sys.version_info[1]}")')
index=https://k2-fsa.github.io/k2/$([[ $kind == cpu ]] && echo cpu || echo cuda).html
if ! page=$(curl --silent --show-error --fail --max-time 60 "$index"); then
  echo "install_k2.sh: $index cannot be reached; decode.lattice.backend=kaldi needs no k2" >&2
  exit 1
fi
# Names look like k2-1.24.4.dev20250715+cpu.torch2.7.1-cp311-cp311-linux_x86_64.whl; an address writes "+" as %2B.
wheels=$(grep -oE "https://[^\"' <>]+\.whl" <<<"$page" | grep -E "(\+|%2B)$kind\.torch$torch-$tag-.*$(uname -m)" || true)
wheel=$(sort -V <<<"$wheels" | tail -1)
if [[ -z $wheel ]]; then
  newest=$(grep -oE "(\+|%2B)$kind\.torch[0-9.]+-$tag" <<<"$page" | grep -oE "torch[0-9.]+" | sort -uV | tail -1)
  echo "install_k2.sh: $index has no wheel for torch $torch ($kind, $tag); the newest there is for ${newest:-another Python}." >&2
  echo "  Install that torch, or stay with decode.lattice.backend=kaldi, which needs no k2." >&2
  exit 1
fi
"$python" -m pip install --no-deps "$wheel"
"$python" -c 'import k2; print("k2", k2.__dev_version__, "works")'
