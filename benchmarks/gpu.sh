#!/bin/sh
# Measures OpenGRIT on one GPU in at most ten minutes, with no network, into one Markdown page (default runs/gpu.md).
#
#   benchmarks/gpu.sh [--out PAGE] [--seconds 570] [--only PART ...]   on a machine with a GPU, torch and pip
#   benchmarks/gpu.sh --rehearse                                       every part on a CPU, with small shapes
#   benchmarks/gpu.sh --wheels .gpu-wheels [--python 3.12] [NAME ...]  with a network: the wheels that a bare machine lacks
#
# Wheels are taken from $WHEELS (default .gpu-wheels), if that folder is there, and go in front of what $PYTHON (default
# python3) has; a rehearsal takes them only where $WHEELS is set. Nothing of the machine is changed.
set -eu
began=$(date +%s)
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=${WHEELS:-$root/.gpu-wheels}
if [ "${1:-}" = --wheels ]; then
    shift
    exec "$python" "$root/benchmarks/gpu_wheels.py" "$@"
fi
case "${WHEELS:+given}  $* " in
" "*" --rehearse "*) ;; # with what is installed here
*)
    if ls "$wheels"/*.whl >/dev/null 2>&1; then
        site=$(mktemp -d)
        trap 'rm -rf "$site"' EXIT
        put() {
            "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-index --no-deps --no-compile \
                --no-cache-dir --target "$site" "$@"
        }
        if ! put "$wheels"/*.whl 2>/dev/null; then # one is for another Python or machine: those that fit
            for wheel in "$wheels"/*.whl; do
                put "$wheel" 2>/dev/null || echo "left out, it does not fit this machine: ${wheel##*/}" >&2
            done
        fi
        PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
        export PYTHONPATH
    fi
    ;;
esac
child=
trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' INT TERM HUP
"$python" "$root/benchmarks/gpu.py" --began "$began" "$@" &
child=$!
while :; do # a signal ends `wait` before the page is whole
    code=0
    wait "$child" || code=$?
    kill -0 "$child" 2>/dev/null || exit "$code"
done
