#!/usr/bin/env bash
# Several processes on one machine, for trying out what runs on several machines.
#
#     launch/processes.sh 2 --config configs/demo.py
#     JAX_PLATFORMS=cpu launch/processes.sh 2 --config configs/demo.py
#
# With GPUs, process i uses GPU i. The lines of process i start with [i]. When one
# process fails, the others end too; the same command continues the run.
set -euo pipefail
if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: the first argument is the number of processes" >&2
    exit 1
fi
count=$1
shift
python=${PYTHON:-python}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM
for ((i = 0; i < count; i++)); do
    # The process's own number, not that of a pipeline around it, goes into pids.
    JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count JAX_PROCESS_ID=$i \
        CUDA_VISIBLE_DEVICES=$i "$python" -m tufl_jax.main "$@" \
        > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
    pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
    until wait "$pid"; do
        code=$?
        kill -0 "$pid" 2>/dev/null && continue # a signal interrupted the wait
        status=$code
        break
    done
done
exit "$status"
