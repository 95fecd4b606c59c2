#!/usr/bin/env bash
# Makes the release of a version from two clones of this checkout's commit, in folders of their own, and compares all files.
#
#   deploy/release/check.sh RELEASER VERSION
#
# The programs of the second are compiled anew, with an empty build cache.
set -euo pipefail
[ $# = 2 ] || { echo 'usage: deploy/release/check.sh RELEASER VERSION' >&2; exit 2; }
releaser=$(realpath "$1") version=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
clone() {
  git clone -q . "$work/$1"
  (cd "$work/$1" && "$releaser" -version "$version" -out "$work/$2")
}
echo 'the first of two releases'
clone one first
echo 'the second of two, compiled with an empty cache: 10 min'
GOCACHE=$work/cache clone 'a second/clone, with a long name' second
code=0
for file in "$work"/first/* "$work"/second/*; do
  name=${file##*/}
  cmp "$work/first/$name" "$work/second/$name" || code=1
done
[ "$code" = 0 ] && echo "the same twice: $(ls "$work/first" | wc -l) files of $version"
exit "$code"
