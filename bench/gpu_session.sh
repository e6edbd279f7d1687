#!/usr/bin/env bash
# One session on a bare machine with an NVIDIA GPU, Python, CUDA's driver and torch, without a network:
#   bench/gpu_session.sh OUT_FOLDER [--dry-run] [--minutes N] [-- TRAINING WORDS]
# Wheels of everything else are taken from the folder WHEELS, if it is set (`pip download` made it).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?give a folder for the results}
shift
python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
    "$python" -m venv --system-site-packages "$out/venv" # torch is the machine's
    python=$out/venv/bin/python
    "$python" -m pip install --quiet --no-index --find-links "$WHEELS" --editable '.[dev]'
fi
exec "$python" -m bench.gpu_session --out "$out" "$@"
