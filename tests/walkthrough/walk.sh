#!/bin/bash
# Runs every `sh` block of deploy/README.md in order on a fresh Debian with its own systemd, then the
# SQL blocks and the Python program of sql/README.md, and checks that each bet was placed.
#
#   debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,iproute2 bookworm ROOT
#   tests/walkthrough/walk.sh ROOT >walk.log 2>&1
#
# Needs root, working apt and pip inside ROOT, and the free ports 5432, 8080, 8081, 9464 and 9465.
# Changes ROOT.
# Exit code 0 if every command returned 0, a PING was delivered, and each bet ended as it should.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
root=$(cd "$1" && pwd)
blocks=$(mktemp --directory)
mkdir "$blocks/sh" "$blocks/sql" "$blocks/python"
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

# Writes each block of the language on stdin to a file.
write_blocks() {
  awk -v folder="$blocks/$1" -v opening="\`\`\`$1" '
    $0 == opening { n++; file = sprintf("%s/%02d", folder, n); inside = 1; next }
    /^```$/       { inside = 0 }
    inside        { print >file }'
}
write_blocks sh <"$repository/deploy/README.md"
sed --quiet '/^### SQL$/,/^### The complete flow$/p' "$repository/sql/README.md" | write_blocks sql
write_blocks python <"$repository/sql/README.md"

# The first block runs on the machine with the repository.
(cd "$repository" && bash -eux "$blocks/sh/01")
# The server gets the wheel and nothing else.
home=$root/root
cp "$repository"/.dist/predictu_dispatch-*.whl "$home/"
# The producer's side.
mkdir --parents "$home/producer/sql/clients"
cp -r "$blocks/sql" "$home/producer/blocks"
cp "$blocks/python/01" "$home/producer/buy.py"
cp -r "$repository/sql/clients/python" "$home/producer/sql/clients/"
{
  echo 'set -ex'
  for block in "$blocks"/sh/*; do
    if [ "$block" != "$blocks/sh/01" ]; then
      echo "echo; echo '##### block ${block##*/}'"
      cat "$block"
    fi
  done
  cat <<'END'
systemctl restart "predictu-dispatch@*"
predictu-dispatch ping op_abc123
echo; echo '##### sql/README.md'
cd ~/producer
platform() { psql "$(cat ~/platform.dsn)" --set ON_ERROR_STOP=1 "$@"; }
for block in blocks/*; do
  platform --file $block
  sleep 2 # A person reads the answer; meanwhile the callback is delivered.
done
python3 -m venv .venv && .venv/bin/pip install ./sql/clients/python
PRODUCER_DSN=$(cat ~/platform.dsn) .venv/bin/python buy.py
# As support does it: without root, and with the login that only reads.
runuser --user nobody -- env PREDICTU_DISPATCH_DSN="$(cat ~/helpdesk.dsn)" predictu-dispatch show --bet op_abc123 b-1
ended() {
  platform --no-align --tuples-only --command "
    select bet_state, placement_state, terminal_method, terminal_state
      from predictu_dispatch.outcome_of_bet('op_abc123', '$1')"
}
test "$(ended b-1)" = 'closed|delivered|BET_WIN|delivered'
test "$(ended b-2)" = 'closed|delivered|BET_ROLLBACK|delivered'
test "$(ended b-3)" = 'open|delivered||'
# Of 1,000.00 EUR: a bet won, one rolled back, one open.
curl --silent --fail http://127.0.0.1:8081/_admin/ledger | grep --quiet '"balance": 99812}'
END
} >"$home/walk.sh"

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
