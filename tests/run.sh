#!/usr/bin/env bash
# All tests. Those on a real Slurm mostly wait, so they run beside the others; what they print comes at the end.
#
#     tests/run.sh .venv/bin/python
set -m # the background job is a process group of its own, so that Ctrl-C can be passed on to it
python=$1
log=$(mktemp)
"$python" -m pytest tests/slurm >"$log" 2>&1 &
slurm=$!
trap 'kill -INT -- -$slurm' INT TERM
"$python" -m pytest --ignore=tests/slurm
status=$?
wait $slurm || status=1
echo "tests/slurm:"
cat "$log"
rm "$log"
exit $status
