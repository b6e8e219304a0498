#!/usr/bin/env bash
# English LibriSpeech and Mandarin AISHELL-1 in one model. README.md says where to get them.
#
#   ./run.sh --stage 0 --stop-stage 5 --nproc 4 corpus.path=/where/is     (conf/conformer.yaml)
#   ./run.sh corpus.path=/where/is 'corpus.languages=[zh]' 'corpus.test=[test-aishell]' data_dir=data/zh name=zh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../../utils/recipe.sh
run_recipe conf/conformer.yaml "$@"
