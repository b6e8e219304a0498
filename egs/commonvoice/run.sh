#!/usr/bin/env bash
# Mozilla Common Voice: sentences that volunteers read aloud. README.md says where to get them.
#
#   ./run.sh --stage 0 --stop-stage 5 --nproc 4 corpus.path=/where/cv-corpus-25.0-2026-03-09   (conf/softmax.yaml)
#   ./run.sh --conf conf/clustered.yaml corpus.path=/where/cv-corpus-25.0-2026-03-09     H-Softmax over a clustered tree
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../../utils/recipe.sh
run_recipe conf/softmax.yaml "$@"
