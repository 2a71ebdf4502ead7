#!/bin/sh
# What works on a physical GPU, in one command and one report that its owner can send in.
#
#   scripts/gpu_acceptance.sh [cuda:0] [--out FOLDER] [--network NET.onnx] [--only STEP,STEP] [--quick]
#
# Takes about a quarter of an hour, needs the GPU for itself, and leaves it as it was. Works to the end even if
# a step fails; the exit code is 0 only if none did. PYTHON names the interpreter that has RaPP.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
for python in "${PYTHON:-}" "$root/.venv/bin/python" python3; do
    if [ -n "$python" ] && "$python" -c 'import rapp, profiler' 2>/dev/null; then
        exec "$python" "$root/scripts/gpu_acceptance.py" "$@"
    fi
done
echo "no Python here has RaPP: pip install -e '$root[gpu]', or set PYTHON" >&2
exit 2
