#!/bin/bash
# Runs every `sh` block of deploy/README.md in order on a fresh Debian with its own systemd.
#
#   debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,iproute2 bookworm ROOT
#   tests/walkthrough/walk.sh ROOT >walk.log 2>&1
#
# Needs root, working apt and pip inside ROOT, and the free ports 5432, 8080, 9464 and 9465. Changes
# ROOT.
# Exit code 0 if every command returned 0 and a PING was delivered at the end.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
root=$(cd "$1" && pwd)
blocks=$(mktemp --directory)
group=/sys/fs/cgroup/systemd
[ -d "$group" ] || group=/sys/fs/cgroup
group=$group/predictu-walk-$$
machine=

finish() {
  if [ -n "$machine" ]; then
    kill -KILL "$machine" || true
    wait "$machine" || true
  fi
  rm -r "$blocks"
  for _ in $(seq 50); do
    if find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; then break; fi
    sleep 0.1
  done
}
trap finish EXIT

awk -v folder="$blocks" '
  /^```sh$/ { n++; file = sprintf("%s/%02d", folder, n); print "echo; echo \"##### block " n "\"" >file; inside = 1; next }
  /^```$/   { inside = 0 }
  inside    { print >file }' "$repository/deploy/README.md"

# The first block runs on the machine with the repository.
(cd "$repository" && bash -eux "$blocks/01")
# The server gets the wheel and nothing else.
cp "$repository"/.dist/predictu_dispatch-*.whl "$root/root/"
{
  echo 'set -ex'
  for block in "$blocks"/*; do
    [ "$block" = "$blocks/01" ] || cat "$block"
  done
  echo 'systemctl restart "predictu-dispatch@*"'
  echo 'predictu-dispatch ping op_abc123'
} >"$root/root/walk.sh"

mkdir "$group"
sh -c 'echo $$ >"$0/cgroup.procs" && exec setpriv --pdeathsig KILL unshare --mount --uts --ipc --cgroup --pid --fork \
  --mount-proc --kill-child "$@"' "$group" "$here/machine.sh" "$root" &
machine=$!
inside() {
  nsenter --target "$(cat "/proc/$machine/task/$machine/children" | tr -d ' ')" --mount --pid --uts --ipc \
    env -i HOME=/root TERM=dumb LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
for _ in $(seq 100); do
  case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
  sleep 0.2
done
code=0
inside timeout 900 bash /root/walk.sh </dev/null || code=$?
if [ "$code" -ne 0 ]; then inside journalctl --no-pager --lines 80 || true; fi
echo "##### the walk ended with $code"
exit "$code"
