#!/bin/bash
# `make demo`: runs the built-in image in an engine of its own, shows the same process from inside and from outside, leaves nothing behind.
set -eu
bin=$(cd "$(dirname "$0")/.." && pwd)/bin
[ "$(id -u)" = 0 ] || { echo "make demo makes namespaces, mounts and control groups: run it as root (sudo make demo)" >&2; exit 1; }
for tool in unshare ip ps; do
  command -v $tool >/dev/null || { echo "make demo needs $tool: apt-get install util-linux iproute2 procps" >&2; exit 1; }
done
# A network and a mount namespace for the engine: the machine's own links and firewall stay as they are.
[ -n "${WHERRY_DEMO:-}" ] || exec env WHERRY_DEMO=1 unshare --mount --net --propagation private "$0"
ip link set lo up

dir=$(mktemp -d /tmp/wherry-demo.XXXXXX)
export WHERRY_HOST=unix://$dir/wherry.sock
"$bin/wherryd" --root "$dir/root" --state "$dir/state" --host "$WHERRY_HOST" --cgroup-parent "/wherry-demo-$$" 2>"$dir/log" & engine=$!
finish() {
  code=$?
  "$bin/wherry" rm -f demo >/dev/null 2>&1 || true
  kill $engine 2>/dev/null || true
  wait $engine 2>/dev/null || true
  [ $code = 0 ] || { echo "the engine's log:" >&2; tail -20 "$dir/log" >&2; }
  find /sys/fs/cgroup -mindepth 1 -maxdepth 3 -depth -type d -path "*/wherry-demo-$$*" -exec rmdir {} + 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
for _ in $(seq 200); do [ -S "$dir/wherry.sock" ] && break; sleep 0.02; done

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
title '$ wherry run --rm --memory 64m hello'
time "$bin/wherry" run --rm --memory 64m hello

"$bin/wherry" run -d --name demo --hostname ferry --memory 64m --pids-limit 32 hello --wait >/dev/null
pid=$("$bin/wherry" inspect -f '{{.State.Pid}}' demo)
for _ in $(seq 1500); do "$bin/wherry" logs demo | sed -n 's/^  //p' >"$dir/inside"; grep -q 'new privileges' "$dir/inside" && break; sleep 0.02; done
group=$(sed -n 's/^[0-9]*:pids:\(.*\)/\1/p; s/^0::\(.*\)/\1/p' "/proc/$pid/cgroup" | grep -m1 . || true)
row() { printf '%-18s %s\n' "$1" "$2"; }
{ # the same rows, as the host sees them
  row 'process id' "$pid, of $(find /proc -maxdepth 1 -name '[0-9]*' | wc -l) on this host"
  row 'host name' "$(hostname)"
  row 'user' "$(stat -c '%u, group %g' "/proc/$pid")"
  row 'user ids' "$(awk '{print $2" and up are 0 and up inside"}' "/proc/$pid/uid_map")"
  row 'root file system' "below $dir/root"
  row 'interfaces' "$(ip -br link | awk '{printf "%s%s", sep, $1; sep="; "}')"
  for n in pid net mnt uts ipc user cgroup; do row "$n" "$(readlink "/proc/self/ns/$n")"; done
  row 'memory' "cgroup ${group:0:44}…"
  row 'in ps' "$(ps -o pid=,user=,args= -p "$pid" | tr -s ' ' | cut -c1-50)"
  row 'its parent' "$(ps -o args= -p "$(ps -o ppid= -p "$pid" | tr -d ' ')" | cut -c1-40)…"
} >"$dir/outside"
if [ "$(stty size </dev/tty 2>/dev/null | cut -d' ' -f2 || true)" -ge 150 ] 2>/dev/null; then
  title "One process from inside the container, and from the host"
  pr -m -t -w 150 "$dir/inside" "$dir/outside"
else
  title "One process from inside the container …"
  cat "$dir/inside"
  title "… and from the host"
  cat "$dir/outside"
fi
title '$ wherry stop demo; wherry rm demo'
"$bin/wherry" stop -t 0 demo && "$bin/wherry" rm demo
title "Nothing is left. Next: bin/wherry run --help, or make test."
