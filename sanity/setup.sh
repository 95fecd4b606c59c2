#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the tests, the demo and the benchmarks use and this
# machine lacks. Without root or apt-get it says what is missing and what is skipped because
# of it. It never fails for that: whatever needs a missing program skips and says so. With the argument e2e it
# installs what a cluster of nodes needs too.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

# program  | packages             | what goes without it
needs='
gcc        | gcc,libc6-dev        | the race detector
fusermount3| fuse3                | mounting without root
fio        | fio                  | the random-read case of make bench
curl       | curl                 | the curl rows of make bench, the socket tests
rsync      | rsync                | the rsync test
git        | git                  | the git clone test
jq         | jq                   | the examples that read JSON
python3    | python3              | the mmap and sendfile tests, the mmap case of make bench
nginx      | nginx                | the tests against nginx
apache2    | apache2-bin          | the tests against Apache httpd
java       | default-jre-headless | the tests and benchmarks against Alluxio
mvn        | maven                | the tests and benchmarks against Alluxio
'
[ "${1:-}" != e2e ] || needs+='
containerd | containerd           | make e2e
runc       | runc                 | make e2e
nft        | nftables             | make e2e
busybox    | busybox              | make e2e
nsenter    | util-linux           | make e2e
/usr/lib/cni/ptp | containernetworking-plugins | make e2e
/etc/ssl/certs/ca-certificates.crt | ca-certificates | make e2e
'

missing() {
  local program package without
  while IFS='|' read -r program package without; do
    program=${program// /}
    [ -n "$program" ] || continue
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
  timeout 300 apt-get update -qq >/dev/null || return 1
  timeout 600 apt-get install -y -qq --no-install-recommends "$@" >/dev/null || return 1
  case " $* " in
    *' nginx '*) systemctl disable nginx >/dev/null 2>&1 || true ;; # nor at the next boot
  esac
}

list=$(missing)
[ -n "$list" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  mapfile -t packages < <(cut -d'|' -f2 <<<"$list" | tr , '\n')
  echo "setup: installing ${packages[*]}"
  install_packages "${packages[@]}" || echo 'setup: the packages could not all be installed'
  list=$(missing)
fi
while IFS='|' read -r program package without; do
  [ -n "$program" ] || continue
  echo "setup: $program is not here (package $package), so this is skipped: $without"
done <<<"$list"
