#!/usr/bin/env bash
# Runs one session on an offline machine that has an NVIDIA GPU, CUDA's driver, Python and torch:
#   bench/gpu_session.sh OUT_FOLDER [--dry-run] [--minutes N] [-- TRAINING WORDS]
# If WHEELS is set, all other packages are installed from this folder (made by `pip download`).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?give a folder for the results}
shift
python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
    "$python" -m venv --system-site-packages "$out/venv" # uses the machine's torch
    python=$out/venv/bin/python
    "$python" -m pip install --quiet --no-index --find-links "$WHEELS" --editable '.[dev]'
fi
exec "$python" -m bench.gpu_session --out "$out" "$@"
