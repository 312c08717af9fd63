#!/usr/bin/env bash
# One machine: a single process drives all of its GPUs.
#
#     launch/local.sh --config configs/demo.py
#     CUDA_VISIBLE_DEVICES=0,1 launch/local.sh --config configs/demo.py
#
# Batch sizes count the images of all GPUs together; use multiples of their number.
set -euo pipefail
exec "${PYTHON:-python}" -m tufl_jax.main "$@"
