# What every recipe's run.sh shares: option parsing and the stages. Sourced, not run, after `cd` to the recipe's folder.
#
#   ./run.sh [--stage 0] [--stop-stage 5] [--conf conf/x.yaml] [--nproc N] [--force] [a.b=c ...]

STAGES=(prepare features vocab train decode score)

usage() {
  cat <<EOF
usage: ./run.sh [--stage N] [--stop-stage N] [--conf FILE] [--nproc N] [--force] [a.b=c ...]

stages: 0 prepare  1 features  2 vocab  3 train  4 decode  5 score   (default: 0 to 5)
  --conf FILE    config of the experiment (default: $1); relative to the recipe, else to the folder it is called from
  --nproc N      training processes, one a GPU or CPU core (default: 1)
  --force        redo the stages even if they are complete
  a.b=c          options of the config, e.g. model.encoder.layers=4
--stage=3 is the same as --stage 3.
EOF
}

# fail MESSAGE
fail() {
  echo "run.sh: $1" >&2
  exit 2
}

# refuse MESSAGE, within run_recipe
refuse() {
  echo "run.sh: $1" >&2
  usage "$default_conf" >&2
  exit 2
}

# refuse_unknown OPTION, with what was probably meant
refuse_unknown() {
  case $1 in
    --*.*=*) refuse "unknown option: $1 (options of the config are written without --: ${1#--})" ;;
    *.yaml) refuse "unknown option: $1 (a config is named by --conf $1)" ;;
    *) refuse "unknown option: $1" ;;
  esac
}

# find_conf FILE: prints its path; a relative one belongs to the recipe, else to the folder that run.sh was called from.
find_conf() {
  local conf=${1/#\~\//$HOME/} caller=${OLDPWD:-$PWD} places=$PWD
  if [[ $conf == /* || -f $conf ]]; then
    [[ -f $conf ]] || fail "--conf $1: no such file"
    echo "$conf"
    return
  fi
  if [[ -f $caller/$conf ]]; then
    echo "$caller/$conf"
    return
  fi
  [[ $caller == "$PWD" ]] || places+=", nor in $caller"
  local name=${conf##*/}
  local meant=conf/${name%.yaml}.yaml
  [[ -f $meant ]] && fail "--conf $1: no such file in $places; did you mean $meant?"
  fail "--conf $1: no such file in $places; the recipe has $(echo conf/*.yaml)"
}

# run_recipe DEFAULT_CONF "$@"
run_recipe() {
  local conf=$1 default_conf=$1 stage=0 stop_stage=5 nproc=1 force=() overrides=()
  local option value
  shift
  while (($#)); do
    option=$1
    shift
    case $option in
      --stage=* | --stop-stage=* | --stop_stage=* | --conf=* | --nproc=*)
        value=${option#*=}
        option=${option%%=*}
        [[ -n $value ]] || refuse "$option wants a value"
        ;;
      --stage | --stop-stage | --stop_stage | --conf | --nproc)
        (($#)) || refuse "$option wants a value"
        value=$1
        shift
        ;;
    esac
    case $option in
      --stage) stage=$value ;;
      --stop-stage | --stop_stage) stop_stage=$value ;;
      --conf) conf=$value ;;
      --nproc) nproc=$value ;;
      --force) force=(--force) ;;
      -h | --help) usage "$default_conf"; return 0 ;;
      -* | =*) refuse_unknown "$option" ;;
      *=*) overrides+=("$option") ;;
      *) refuse_unknown "$option" ;;
    esac
  done
  [[ $stage =~ ^[0-5]$ && $stop_stage =~ ^[0-5]$ ]] || refuse "stages are 0 to 5, found $stage to $stop_stage"
  ((stage <= stop_stage)) || refuse "nothing to do from stage $stage to stage $stop_stage"
  [[ $nproc =~ ^[1-9][0-9]*$ ]] || refuse "--nproc wants a number of processes, found $nproc"
  conf=$(find_conf "$conf") || exit
  local number
  export MASR_RECIPE=$$  # a stage ends when this script does, even by kill -9
  for ((number = stage; number <= stop_stage; number++)); do
    local verb=${STAGES[number]} processes=()
    if [[ $verb == train && $nproc -gt 1 ]]; then processes=(--nproc "$nproc"); fi
    echo "--- stage $number: $verb"
    masr "$verb" "$conf" "${overrides[@]}" "${force[@]}" "${processes[@]}"
  done
}

# The project's own environment first, if `make install` has made one.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -d $_root/.venv/bin ]]; then PATH="$_root/.venv/bin:$PATH"; fi
