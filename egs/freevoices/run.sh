#!/usr/bin/env bash
# freevoices: eleven languages of real speech, in the box. The data needs no download.
#
#   ./run.sh --stage 0 --stop-stage 5                          the main experiment (conf/conformer.yaml)
#   ./run.sh --conf conf/demo.yaml                             three languages in ten minutes
#   ./run.sh --stage 3 name=small model.encoder.layers=4       a variation under another name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../../utils/recipe.sh
run_recipe conf/conformer.yaml "$@"
