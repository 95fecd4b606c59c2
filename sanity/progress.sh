#!/usr/bin/env bash
# Runs a command and prints that it goes on: a line at once, one every five seconds, one at the end.
#
#   sanity/progress.sh LABEL ESTIMATE -- COMMAND [ARGUMENT...]
#   sanity/progress.sh 'building millrace' 'about a minute' -- go build -o bin/ ./cmd/...
#
# The command's output goes where this script's goes, and its exit code is this script's. Of `go build` with packages
# that begin with "./" it also says how many modules were downloaded and how many packages were compiled.
# INT, TERM and HUP go to the command and its children, and the script ends after them.
# PROGRESS_EVERY sets the seconds between two lines. Needs bash 4.4 and coreutils.
set -euo pipefail

usage() {
  echo 'usage: sanity/progress.sh LABEL ESTIMATE -- COMMAND [ARGUMENT...]' >&2
  exit 2
}
[ $# -ge 4 ] && [ "$3" = -- ] || usage
label=$1 estimate=$2
shift 3
every=${PROGRESS_EVERY:-5}
[[ $every =~ ^[1-9][0-9]*$ ]] || { echo "PROGRESS_EVERY=$every: a whole number of seconds is wanted" >&2; exit 2; }

# is_go_build reports whether the command is `go build`.
is_go_build() { [[ ${1##*/} =~ ^go[0-9.]*$ && ${2:-} = build ]]; }

# how_far tells what a build has done so far.
how_far() {
  [ "$modules" = 0 ] || printf ', %d modules downloaded' "$modules"
  case $compiled:$total in
    0:*) ;;
    *:0) printf ', %d packages compiled' "$compiled" ;;
    *) printf ', %d of up to %d packages compiled' "$compiled" "$total" ;;
  esac
}

# take_line counts what `go build -v` reports of its own work, and passes on everything else.
take_line() {
  case $1 in
    'packages in all: '*) total=${1##* } ;;
    'go: downloading '*) modules=$((modules + 1)) ;;
    '' | *[!A-Za-z0-9._/~+-]*) printf '%s\n' "$1" >&2 ;;
    *) compiled=$((compiled + 1)) ;;
  esac
}

# watch prints the lines of progress until its input ends.
watch() {
  trap '' INT TERM HUP
  local line part='' code next=$every modules=0 compiled=0 total=0
  while :; do
    code=0
    IFS= read -r -t "$((next > SECONDS ? next - SECONDS : 1))" line || code=$?
    part+=$line
    if [ "$code" = 0 ]; then
      take_line "$part"
      part=''
    elif [ "$code" -le 128 ]; then
      [ -z "$part" ] || take_line "$part"
      return 0
    fi
    if [ "$SECONDS" -ge "$next" ]; then
      printf '%s: %d s%s (%s)\n' "$label" "$SECONDS" "$(how_far)" "$estimate"
      next=$((SECONDS + every))
    fi
  done
}

# run runs a command as a process group of its own, so that a signal reaches each of its processes once.
run() {
  "$@" </dev/null &
  child=$!
  [ -z "$stopped" ] || kill "-$stopped" -- "-$child" 2>/dev/null || true
  # A trap interrupts the wait, and the command may still have to clean up. What ended meanwhile can still be asked for.
  local code ended
  while :; do
    interrupted='' ended=0
    wait "$child" 2>/dev/null || ended=$?
    [ "$ended" = 127 ] && [ -n "${code:-}" ] || code=$ended
    [ -n "$interrupted" ] || break
  done
  [ -z "$stopped" ] || kill -KILL -- "-$child" 2>/dev/null || true
  child=''
  return "$code"
}

# stop passes a signal on.
stop() {
  stopped=$1 interrupted=yes
  [ -z "$child" ] || kill "-$1" -- "-$child" 2>/dev/null || true
}

# count_packages downloads what a build needs, and tells the watch how many packages that is.
count_packages() {
  local go=$1 argument packages=()
  for argument in "${@:3}"; do
    [[ $argument != ./* ]] || packages+=("$argument")
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  # A list in a variable has no file to leave behind.
  local list
  list=$("$go" list -deps "${packages[@]}") || return
  printf 'packages in all: %d\n' "$(wc -l <<<"$list")" >&2
}

# build is the command of a `go build`, whose report goes to the watch.
build() {
  count_packages "$@" || exit
  exec "$1" build -v "${@:3}"
}

child='' stopped='' interrupted='' code=0
set -m
for signal in INT TERM HUP; do
  # shellcheck disable=SC2064 # the signal's name is wanted now
  trap "stop $signal" "$signal"
done
SECONDS=0
printf '%s (%s) ...\n' "$label" "$estimate"
exec {report}> >(watch)
watcher=$!
if is_go_build "$@"; then
  run build "$@" 2>&"$report" {report}>&- || code=$?
else
  run "$@" {report}>&- || code=$?
fi
exec {report}>&-
wait "$watcher" || true
if [ -n "$stopped" ]; then
  printf '%s: stopped after %d s\n' "$label" "$SECONDS"
  # A command that caught the signal and ended well was still stopped.
  [ "$code" != 0 ] || code=130
elif [ "$code" = 0 ]; then
  printf '%s: done in %d s\n' "$label" "$SECONDS"
else
  printf '%s: failed after %d s (exit code %d)\n' "$label" "$SECONDS" "$code"
fi
exit "$code"
