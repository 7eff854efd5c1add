#!/bin/bash
# containerd, its shim and its client with oar in runc's place: containerd.sh OAR IMAGE-ARCHIVE FOLDER. Prints what containers print, and how they end.
set -u
oar=$1 image=$2 dir=$3
mount -t tmpfs run /run && mkdir -p /run/lock
ip link set lo up
export CONTAINERD_ADDRESS=/run/containerd.sock CONTAINERD_SNAPSHOTTER=native
printf 'version = 2\nroot = "%s/root"\nstate = "/run/containerd"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "%s"\n' "$dir" $CONTAINERD_ADDRESS >"$dir/config.toml"
containerd -c "$dir/config.toml" >"$dir/containerd.log" 2>&1 </dev/null &
engine=$!
for _ in $(seq 300); do ctr version >/dev/null 2>&1 && break; sleep 0.1; done
ctr version >/dev/null 2>&1 || tail -5 "$dir/containerd.log"
ctr image import "$image" >/dev/null 2>&1
ref=$(ctr image ls -q | head -1)
ctr events >"$dir/events" 2>/dev/null &
events=$!
new() { ctr run --runc-binary "$oar" --cgroup "/wherry-e2e-containerd/$cgroup" "$@"; }
status() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }'; }
cgroup=a
new --rm "$ref" once sh -c 'echo "run by $(id -u)"; exit 7'; echo "run: $?"
cgroup=b
new --rm "$ref" missing no-such 2>&1 | grep -o 'executable file not found' | head -1
script -qec "$(declare -f new); oar=$oar cgroup=d; new --rm -t $ref terminal tty" /dev/null </dev/null | sed 's/^^@//' # script(1) passes its own end of input on
echo "-t: ${PIPESTATUS[0]}"
cgroup=box
new -d --memory-limit 67108864 --env HELLO=there "$ref" box sleep 1000; echo "detached: $?, $(status box)"
cat /sys/fs/cgroup/memory/wherry-e2e-containerd/box/memory.limit_in_bytes
ctr task exec --exec-id a box sh -c 'echo "further, $HELLO"; exit 3'; echo "exec: $?"
ctr task exec --exec-id b box no-such 2>&1 | grep -o 'executable file not found' | head -1
ctr task ps box | awk 'NR > 1' | wc -l
ctr task metrics box | grep -c '^memory.usage_in_bytes *[1-9]'
ctr task pause box; status box; ctr task resume box; status box
ctr task kill -s KILL box
for _ in $(seq 1500); do [ "$(status box)" = STOPPED ] && break; sleep 0.02; done; status box
ctr task delete box 2>/dev/null; echo "delete: $?"
ctr task start -d box 2>&1; status box
ctr task delete -f box >/dev/null 2>&1; ctr container delete box; echo "gone: $?, $(ctr container ls -q | wc -l)"
for topic in create start exec-added exec-started paused resumed exit delete; do
  for _ in $(seq 1500); do grep -q "/tasks/$topic " "$dir/events" && break; sleep 0.02; done
  grep -q "/tasks/$topic " "$dir/events" && echo "event $topic"
done
kill $events $engine; wait $events $engine 2>/dev/null
find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -depth -type d -path '*/wherry-e2e-containerd*' -exec rmdir {} + 2>/dev/null
true
