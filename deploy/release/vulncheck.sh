#!/usr/bin/env bash
# Runs govulncheck, and tells what it could not check from what it found nothing in.
#
#   deploy/release/vulncheck.sh GOVULNCHECK PACKAGE...
#
# The last line begins with "vulncheck: " and one of:
#   OK       nothing known is reached; the exit code is 0
#   NOT RUN  the database cannot be reached, so nothing is known; 0
#   FOUND    code that is reached has a known vulnerability; 3
#   FAILED   govulncheck could not check; its own exit code
# GOVULNDB names another database.
set -uo pipefail
[ $# -ge 2 ] || { echo 'usage: deploy/release/vulncheck.sh GOVULNCHECK PACKAGE...' >&2; exit 2; }
said=$(mktemp)
trap 'rm -f "$said"' EXIT
root=$(dirname "$0")/../..
"$root/sanity/progress.sh" 'looking for known vulnerabilities' '2 min' -- "$@" 2>"$said"
code=$?
cat "$said" >&2
case $code in
  0) echo 'vulncheck: OK: no known vulnerability is in code that is reached' ;;
  3) echo 'vulncheck: FOUND: the lines above name known vulnerabilities in code that is reached' ;;
  *)
    if reason=$(grep -m 1 -o 'fetching vulnerabilities: .*' "$said"); then
      echo "vulncheck: NOT RUN: nothing was checked, as the vulnerability database cannot be reached;" \
        "GOVULNDB names another (${reason#fetching vulnerabilities: })"
      exit 0
    fi
    echo "vulncheck: FAILED: govulncheck could not check (exit code $code)"
    ;;
esac
exit "$code"
