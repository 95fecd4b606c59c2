#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that a target of the Makefile uses and this machine lacks:
#   sanity/setup.sh test|bench|alluxio|e2e
# Without root or apt-get it says what is missing and what is skipped because of it. It never fails for that:
# whatever needs a missing program skips and says so.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
here=$(dirname "${BASH_SOURCE[0]}")

# target       | program    | packages             | what goes without it
needs='
test           | gcc        | gcc,libc6-dev        | the race detector
test bench     | fusermount3| fuse3                | mounting without root
bench          | fio        | fio                  | the random-read case of make bench
test bench e2e | curl       | curl                 | the curl rows of make bench, the socket tests
test           | rsync      | rsync                | the rsync test
test           | git        | git                  | the git clone test
test           | jq         | jq                   | the examples that read JSON
test bench     | python3    | python3              | the mmap and sendfile tests, the mmap case of make bench
test           | pip3       | python3-pip          | running the safetensors example
test bench     | nginx      | nginx                | the tests against nginx
test e2e       | apache2    | apache2-bin          | the tests against Apache httpd
test bench alluxio e2e | java | default-jre-headless | the tests and benchmarks against Alluxio
test bench alluxio e2e | mvn | maven               | the tests and benchmarks against Alluxio
e2e            | containerd | containerd           | make e2e
e2e            | runc       | runc                 | make e2e
e2e            | nft        | nftables             | make e2e
e2e            | busybox    | busybox              | make e2e
e2e            | nginx      | nginx                | make e2e
e2e            | nsenter    | util-linux           | make e2e
e2e            | /usr/lib/cni/ptp | containernetworking-plugins | make e2e
e2e            | /etc/ssl/certs/ca-certificates.crt | ca-certificates | make e2e
'

case "${1:-}" in
  test | bench | alluxio | e2e) target=$1 ;;
  *)
    echo "setup: target \"${1:-}\": one of test, bench, alluxio, e2e" >&2
    exit 2
    ;;
esac

missing() {
  local targets program package without
  while IFS='|' read -r targets program package without; do
    program=${program// /}
    [[ " $targets " == *" $target "* && -n "$program" ]] || continue
    command -v "$program" >/dev/null 2>&1 || [ -e "$program" ] || printf '%s|%s|%s\n' "$program" "${package// /}" "${without# }"
  done <<<"$needs"
}

# Debian starts a server as soon as it is installed; policy-rc.d is its way to refuse.
policy=/usr/sbin/policy-rc.d
forbid_services() {
  [ -e "$policy" ] && return
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  forbid_services
  "$here/progress.sh" 'reading the list of packages' '10 s' -- timeout 300 apt-get update -qq || return 1
  "$here/progress.sh" "installing $*" '2 min' -- timeout 600 apt-get install -y -qq --no-install-recommends -o=Dpkg::Use-Pty=0 "$@" || return 1
  case " $* " in
    *' nginx '*) systemctl disable nginx >/dev/null 2>&1 || true ;; # nor at the next boot
  esac
}

list=$(missing)
[ -n "$list" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  mapfile -t packages < <(cut -d'|' -f2 <<<"$list" | tr , '\n')
  install_packages "${packages[@]}" || echo 'setup: the packages could not all be installed'
  list=$(missing)
fi
while IFS='|' read -r program package without; do
  [ -n "$program" ] || continue
  echo "setup: $program is not here (package $package), so this is skipped: $without"
done <<<"$list"
