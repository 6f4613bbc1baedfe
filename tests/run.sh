#!/usr/bin/env bash
# All tests, in three lanes side by side: unit tests and invariants keep one core busy, the workflow's jobs use both and often wait, and
# those on a real Slurm mostly wait. The output of the other two lanes comes after that of the unit tests; what was skipped, and why, and
# what failed is listed at the end.
#
#     tests/run.sh .venv/bin/python
set -m # every lane is a process group: Ctrl-C reaches the unit tests alone and is passed on to the others
python=$1
interrupted=2 # pytest's exit status
logs=$(mktemp -d)
trap 'rm -r "$logs"' EXIT

lanes=(workflow slurm) groups=()
for lane in "${lanes[@]}"; do
    "$python" -m pytest "tests/$lane" >"$logs/$lane" 2>&1 &
    groups+=($!)
done
"$python" -m pytest tests/unit tests/invariants 2>&1 | tee -i "$logs/unit"
status=${PIPESTATUS[0]}
[ "$status" -eq $interrupted ] && kill -INT -- "${groups[@]/#/-}"
for i in "${!lanes[@]}"; do
    wait "${groups[i]}" || [ "$status" -eq $interrupted ] || status=1
    printf '\ntests/%s:\n' "${lanes[i]}"
    cat "$logs/${lanes[i]}"
done

printf '\nSkipped:\n'
grep -h '^SKIPPED' "$logs"/* || echo nothing
[ "$status" -eq 0 ] || { printf '\nFailed:\n' && grep -hE '^(FAILED|ERROR)' "$logs"/*; }
exit "$status"
