#!/usr/bin/env bash
# All tests. Those on a real Slurm mostly wait, so they run beside the unit tests; what they print comes after these. The others watch the
# clock, kill jobs and start them again: they have the machine to themselves.
#
#     tests/run.sh .venv/bin/python
set -m # the background job is a process group of its own: Ctrl-C stops the unit tests alone, and is passed on below
python=$1
interrupted=2 # pytest's exit status
log=$(mktemp)
"$python" -m pytest tests/slurm >"$log" 2>&1 &
slurm=$!
"$python" -m pytest tests/unit
status=$?
[ $status -eq $interrupted ] && kill -INT -- -$slurm
wait $slurm || [ $status -eq $interrupted ] || status=1
echo "tests/slurm:"
cat "$log"
rm "$log"
[ $status -eq $interrupted ] && exit $status
"$python" -m pytest tests/invariants tests/workflow || status=1
exit $status
