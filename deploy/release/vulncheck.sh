#!/usr/bin/env bash
# Runs govulncheck, and tells what it could not check from what it found nothing in.
#
#   deploy/release/vulncheck.sh GOVULNCHECK PACKAGE...
#
# The exit code is 0 where nothing was found, and where the database cannot be reached, which the last line then says; 3 where code that
# is reached has a known vulnerability; another where govulncheck failed. GOVULNDB names another database.
set -uo pipefail
[ $# -ge 2 ] || { echo 'usage: deploy/release/vulncheck.sh GOVULNCHECK PACKAGE...' >&2; exit 2; }
said=$(mktemp)
trap 'rm -f "$said"' EXIT
"$@" 2> >(tee "$said" >&2)
code=$?
wait
[ "$code" = 0 ] && exit 0
if reason=$(grep -m 1 -o 'fetching vulnerabilities: .*' "$said"); then
  echo "vulncheck: NOT RUN: the vulnerability database cannot be reached (${reason#fetching vulnerabilities: })"
  exit 0
fi
exit "$code"
