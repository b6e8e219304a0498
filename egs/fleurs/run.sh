#!/usr/bin/env bash
# FLEURS: the same sentences in 102 languages. README.md says where to get them.
#
#   ./run.sh --stage 0 --stop-stage 5 corpus.path=/where/fleurs                all of Whisper-small (conf/whisper.yaml)
#   ./run.sh --conf conf/soft_prompts.yaml corpus.path=/where/fleurs           soft prompts instead
#   ./run.sh --conf conf/experts.yaml corpus.path=/where/fleurs                LoRA experts of eight languages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../../utils/recipe.sh
run_recipe conf/whisper.yaml "$@"
