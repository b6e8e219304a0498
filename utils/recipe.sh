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

# refuse MESSAGE, within run_recipe
refuse() {
  echo "run.sh: $1" >&2
  usage "$default_conf" >&2
  exit 2
}

# run_recipe DEFAULT_CONF "$@"
run_recipe() {
  local conf=$1 default_conf=$1 stage=0 stop_stage=5 nproc=1 force=() overrides=()
  shift
  while (($#)); do
    case $1 in
      --stage | --stop-stage | --stop_stage | --conf | --nproc) (($# > 1)) || refuse "$1 wants a value" ;;
    esac
    case $1 in
      --stage) stage=$2; shift 2 ;;
      --stop-stage | --stop_stage) stop_stage=$2; shift 2 ;;
      --conf) conf=$2; shift 2 ;;
      --nproc) nproc=$2; shift 2 ;;
      --force) force=(--force); shift ;;
      -h | --help) usage "$default_conf"; return 0 ;;
      *=*) overrides+=("$1"); shift ;;
      *) refuse "unknown option: $1" ;;
    esac
  done
  [[ $stage =~ ^[0-5]$ && $stop_stage =~ ^[0-5]$ ]] || refuse "stages are 0 to 5, found $stage to $stop_stage"
  ((stage <= stop_stage)) || refuse "nothing to do from stage $stage to stage $stop_stage"
  [[ $nproc =~ ^[1-9][0-9]*$ ]] || refuse "--nproc wants a number of processes, found $nproc"
  local number
  for ((number = stage; number <= stop_stage; number++)); do
    local verb=${STAGES[number]}
    echo "--- stage $number: $verb"
    if [[ $verb == train && $nproc -gt 1 ]]; then
      # not accelerate launch: without a GPU that starts a single process, unless there is MPI
      OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} torchrun --standalone --nproc_per_node "$nproc" \
        -m masr.cli train "$conf" "${overrides[@]}" "${force[@]}"
    else
      masr "$verb" "$conf" "${overrides[@]}" "${force[@]}"
    fi
  done
}

# The project's own environment first, if `make install` has made one.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -d $_root/.venv/bin ]]; then PATH="$_root/.venv/bin:$PATH"; fi
