#!/usr/bin/env bash
# All tests, in lanes side by side: unit tests and invariants keep one core busy, the workflow's jobs use both and often wait, and those on
# a real Slurm mostly wait. The output of the other lanes comes after that of the unit tests. At the end stand the time of each lane, what
# was skipped and why, and what failed.
#
#     tests/run.sh .venv/bin/python
#
# Fails if any lane does, however it ends; with CI in the environment also if a test is skipped that should run (tests/helpers/skips.py).
set -m # every lane is a process group: Ctrl-C reaches the unit tests alone and is passed on to the others
python=$1
interrupted=2 # pytest's exit status
logs=$(mktemp -d)
lanes=() groups=()
for lane in workflow slurm browser; do
    [ -d "tests/$lane" ] && lanes+=("$lane")
done

stop() { [ ${#groups[@]} -eq 0 ] || kill -"$1" -- "${groups[@]/#/-}" 2>/dev/null; }
trap 'rm -r "$logs"' EXIT
trap 'stop TERM; exit 143' TERM
trap 'stop HUP; exit 129' HUP

# Runs a lane's tests, and writes down their exit status and seconds.
lane() {
    local name=$1 started=$SECONDS
    shift
    "$python" -m pytest "$@"
    echo "$? $((SECONDS - started))" >"$logs/$name.end"
}

for lane in "${lanes[@]}"; do
    lane "$lane" "tests/$lane" >"$logs/$lane.log" 2>&1 &
    groups+=($!)
done
lane unit tests/unit tests/invariants tests/install 2>&1 | tee -i "$logs/unit.log"
read -r code _ <"$logs/unit.end" || code=137
[ "$code" -eq $interrupted ] && stop INT
for i in "${!lanes[@]}"; do
    wait "${groups[i]}"
    printf '\ntests/%s:\n' "${lanes[i]}"
    cat "$logs/${lanes[i]}.log"
done

status=0 failed=()
printf '\nTime:\n'
for lane in unit "${lanes[@]}"; do
    read -r code seconds <"$logs/$lane.end" || code=137 seconds=0 # a lane that was killed wrote nothing
    name=${lane/#unit/unit and invariants}
    printf '  %-20s %2d:%02d\n' "$name" $((seconds / 60)) $((seconds % 60))
    [ "$code" -eq 0 ] && continue
    [ "$lane" = unit ] && [ "$code" -eq $interrupted ] && status=$interrupted
    [ "$status" -eq 0 ] && status=1
    [ "$code" -eq 1 ] || failed+=("FAILED tests/$lane: pytest ended with status $code")
done
printf '  %-20s %2d:%02d\n' all $((SECONDS / 60)) $((SECONDS % 60))

printf '\nSkipped:\n'
grep -h '^SKIPPED' "$logs"/*.log || echo nothing
if [ "$status" -ne 0 ]; then
    printf '\nFailed:\n'
    grep -hE '^(FAILED|ERROR)' "$logs"/*.log
    printf '%s\n' "${failed[@]}"
fi
exit "$status"
