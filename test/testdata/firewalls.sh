#!/bin/bash
# A published port beside ufw and firewalld: whatever they are told to do again, the port answers soon, the engine's table is what it was,
# and what was not published answers at no moment. Runs in namespaces of its own; $1 has wherryd, wherry and oar, $2 an image's archive, $3 is empty.
set -eu
bin=$1 image=$2 dir=$3
mount -t tmpfs etc "$dir"; mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=/etc,upperdir=$dir/upper,workdir=$dir/work" etc /etc
mount -t tmpfs run /run; mkdir -p /run/lock
ip link set lo up; sysctl -qw net.ipv4.ip_forward=1
ip netns add lan
ip link add wan0 type veth peer name eth0 netns lan
ip addr add 198.51.100.1/24 dev wan0; ip link set wan0 up
ip -n lan addr add 198.51.100.2/24 dev eth0; ip -n lan link set eth0 up; ip -n lan link set lo up; ip -n lan route add default via 198.51.100.1

"$bin/wherryd" --root "$dir/root" --state /run/engine --host unix:///run/engine.sock --cgroup-parent "/$(basename "$dir")" >"$dir/log" 2>&1 & engine=$!
pids=()
wherry() { "$bin/wherry" -H unix:///run/engine.sock "$@"; }
finish() {
  code=$?
  [ $code = 0 ] || { echo "the engine's log:"; tail -5 "$dir/log"; }
  wherry rm -f web >/dev/null 2>&1 || true
  for p in "${pids[@]}" $engine; do kill "$p" 2>/dev/null || true; wait "$p" 2>/dev/null || true; done
  [ ! -e /run/dbus.pid ] || kill "$(cat /run/dbus.pid)"
  exit $code
}
trap finish EXIT
for _ in $(seq 200); do wherry version >/dev/null 2>&1 && break; sleep 0.05; done
wherry load -q -i "$image" >/dev/null
wherry run -d --name web -p 8080:80 busybox:1 httpd -f -p 80 -h /etc >/dev/null
inside=$(wherry inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' web)
from_lan() { nsenter --net=/run/netns/lan curl -s -f -m 1 -o /dev/null "$1"; }
answers() { from_lan http://198.51.100.1:8080/passwd; }
again() {
  local end=$((SECONDS + 60))
  until answers; do [ $SECONDS -lt $end ] || { echo "after $*: the port does not answer within a minute"; exit 1; }; sleep 0.1; done
  [ "$(nft list table inet "$table_name" | grep -v counter)" = "$table" ] || { echo "after $*: the table has changed:"; nft list table inet "$table_name" | diff <(echo "$table") -; exit 1; }
  [ ! -e "$dir/open" ] || { echo "after $*: the container's own address answered another machine"; exit 1; }
  echo "answers after $*"
}
# Somebody on the other machine tries the address that nobody has published, all the time.
while :; do from_lan "http://$inside:80/passwd" && touch "$dir/open"; done & pids+=($!)
table_name=$(nft list tables | sed -n "s/table inet \(wherry.*\)/\1/p")
table=$(nft list table inet "$table_name" | grep -v counter)
again "the start"
for _ in 1 2 3; do nft flush ruleset; done; again "nft flush ruleset"

ufw default allow routed >/dev/null; ufw default deny incoming >/dev/null
ufw --force enable >/dev/null; again "ufw enable"
ufw reload >/dev/null; again "ufw reload"
ufw --force disable >/dev/null; again "ufw disable"

mkdir -p /run/dbus
dbus-daemon --system --fork --nopidfile --print-pid=9 9>/run/dbus.pid
firewalld --nofork --nopid >"$dir/firewalld" 2>&1 & pids+=($!)
for _ in $(seq 300); do firewall-cmd --state >/dev/null 2>&1 && break; sleep 0.1; done
again "firewalld"
explained=$(wherry ports explain 8080)
[[ $explained != *unsure* && $explained == *"by wan0"*": yes"* ]] || { echo "beside firewalld it is said: $explained"; exit 1; }
wherry run -d --name host --network host busybox:1 httpd -f -p 8082 -h /etc >/dev/null
for what in "no: the firewall's chain inet firewalld filter_INPUT drops it" "yes"; do
  explained=$(wherry ports explain 8082 | grep "by wan0")
  [[ $explained == *": $what" ]] || { echo "of a port of the host: $explained, and not: $what"; exit 1; }
  [ "$what" = yes ] && code=0 || code=1
  [ "$(from_lan http://198.51.100.1:8082/passwd && echo 0 || echo 1)" = $code ] || { echo "it is said: $explained, and that is not so"; exit 1; }
  firewall-cmd -q --add-port 8082/tcp
done
wherry rm -f host >/dev/null
firewall-cmd -q --reload; again "firewall-cmd --reload"
firewall-cmd -q --complete-reload; again "firewall-cmd --complete-reload"
