# What every recipe's run.sh shares: option parsing and the stages. Sourced, not run.
#
#   ./run.sh [--stage 0] [--stop-stage 5] [--conf conf/x.yaml] [--nproc N] [--force] [a.b=c ...]

STAGES=(prepare features vocab train decode score)

usage() {
  cat <<EOF
usage: ./run.sh [--stage N] [--stop-stage N] [--conf FILE] [--nproc N] [--force] [a.b=c ...]

stages: 0 prepare  1 features  2 vocab  3 train  4 decode  5 score   (default: 0 to 5)
  --conf FILE    config of the experiment (default: $1)
  --nproc N      training processes, one a GPU or CPU core (default: 1)
  --force        redo the stages even if they are complete
  a.b=c          options of the config, e.g. model.encoder.layers=4
EOF
}

# run_recipe DEFAULT_CONF "$@"
run_recipe() {
  local conf=$1 default_conf=$1 stage=0 stop_stage=5 nproc=1 force=() overrides=()
  shift
  while (($#)); do
    case $1 in
      --stage) stage=${2:?--stage wants a number}; shift 2 ;;
      --stop-stage | --stop_stage) stop_stage=${2:?--stop-stage wants a number}; shift 2 ;;
      --conf) conf=${2:?--conf wants a file}; shift 2 ;;
      --nproc) nproc=${2:?--nproc wants a number}; shift 2 ;;
      --force) force=(--force); shift ;;
      -h | --help) usage "$default_conf"; return 0 ;;
      *=*) overrides+=("$1"); shift ;;
      *) echo "run.sh: unknown option: $1" >&2; usage "$default_conf" >&2; return 2 ;;
    esac
  done
  local number
  for ((number = stage; number <= stop_stage; number++)); do
    local verb=${STAGES[number]:?run.sh: stages are 0 to 5}
    echo "--- stage $number: $verb"
    if [[ $verb == train && $nproc -gt 1 ]]; then
      accelerate launch --num_processes "$nproc" --num_machines 1 --mixed_precision no --dynamo_backend no \
        $(masr_has_gpu || echo --cpu) -m masr.cli train "$conf" "${overrides[@]}" "${force[@]}"
    else
      masr "$verb" "$conf" "${overrides[@]}" "${force[@]}"
    fi
  done
}

masr_has_gpu() { python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; }

# The project's own environment first, if `make install` has made one.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ -d $_root/.venv/bin ]] && PATH="$_root/.venv/bin:$PATH"
