#!/bin/sh
# Everything on docs/speed.md but the comparisons with another commit and with vLLM, on a quiet machine, from the root of the
# repository: `sh benchmarks/speed.sh` (half an hour on two cores).
set -e
PYTHON=${PYTHON:-.venv/bin/python}
PAGE=docs/speed.md
"$PYTHON" scripts/engines.py vocabulary
for model in tiny-qwen2.5-vl tiny-internvl3; do
  "$PYTHON" benchmarks/step.py --model $model --vocabulary real --steps 1 --results $PAGE
  "$PYTHON" benchmarks/step.py --model $model --natural --results docs/results/cost.md
done
"$PYTHON" benchmarks/head.py --results $PAGE
"$PYTHON" benchmarks/head.py --words 1500 --results $PAGE
for model in tiny-qwen2.5-vl tiny-internvl3; do
  "$PYTHON" benchmarks/step.py --model $model --natural --beta 0.01 --no-memory --results docs/results/cost.md
  "$PYTHON" benchmarks/step.py --model $model --vocabulary real --natural --rounds 2 --steps 1 --results docs/results/cost.md
done
