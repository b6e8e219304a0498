#!/usr/bin/env bash
# phoneprompts: telephone prompts of five voices in five languages, in the box. The data needs no download.
#
#   ./run.sh --stage 0 --stop-stage 5                          the main experiment (conf/conformer.yaml)
#   ./run.sh --stage 3 name=small model.encoder.layers=2       a variation under another name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ../../utils/recipe.sh
run_recipe conf/conformer.yaml "$@"
