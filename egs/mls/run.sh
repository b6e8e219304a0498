#!/usr/bin/env bash
# Multilingual LibriSpeech (MLS): audiobooks in eight languages. README.md says where to get them.
#
#   ./run.sh --stage 0 --stop-stage 5 --nproc 4 corpus.path=/where/mls/is     six languages (conf/conformer_32m.yaml)
#   ./run.sh corpus.path=/where/mls/is 'corpus.languages=[pt]' data_dir=data/pt name=pt         one of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../../utils/recipe.sh
run_recipe conf/conformer_32m.yaml "$@"
