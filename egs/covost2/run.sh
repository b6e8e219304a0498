#!/usr/bin/env bash
# CoVoST 2: sentences of Common Voice 4 and their translations into English. README.md says where to get them.
#
#   ./run.sh --stage 0 --stop-stage 5 --nproc 4 corpus.path=/where/covost2     five (conf/recognition_translation.yaml)
#   ./run.sh corpus.path=/where/covost2 'corpus.languages=[es,ca]' data_dir=data/es_ca name=es_ca     two languages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../../utils/recipe.sh
run_recipe conf/recognition_translation.yaml "$@"
