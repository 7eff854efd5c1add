#!/bin/bash
# `make bench`: the same commands on Wherry, Docker and Podman, taking turns on one machine; prints the rows of docs/performance.md.
#   bench/run.sh [-n RUNS] [TEST…]    tests: run exec api many log oci small idle pull (default: all of these) thousand reads build compose usual net
# The peers are Debian's own packages, unpacked below $P, never installed as services. Everything runs in a network and mount namespace of
# its own; all of it ends with the script, the packages stay in $P for the next run.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd); root=$(dirname "$here")
export P=${P:-/var/tmp/wherry-bench} IMAGES=$root/.cache/images PYTHONDONTWRITEBYTECODE=1
[ "$(id -u)" = 0 ] || { echo "the bench needs root" >&2; exit 1; }
[ -x "$root/bin/wherryd" ] || { echo "no binaries: run make build first" >&2; exit 1; }
[ -f "$root/.cache/images/busybox-1.tar" ] || { echo "no test images: run make images first" >&2; exit 1; }
case " $* " in *" build "*) builds=yes ;; *) builds= ;; esac
case " $* " in *" pull "*) dirs=yes ;; *[a-z]*) dirs= ;; *) dirs=yes ;; esac
case " $* " in *" compose "*) plugins=yes ;; *) plugins=$builds ;; esac
[ -n "${WHERRY_BENCH:-}" ] || { "$here/peers.sh"; [ -z "$plugins" ] || "$root/test/clients/build.sh" "$root/.cache/clients" ${builds:+buildkitd}; exec env WHERRY_BENCH=1 unshare --mount --net --propagation private "$0" "$@"; }

export PATH=$P/bin:$root/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
run=$P/run; rm -rf "$run" "$P/data"; mkdir -p "$run" "$P/data"
mount -t tmpfs run /run; mkdir -p /run/lock
ip link set lo up; sysctl -qw net.ipv4.ip_forward=1
pids=()
finish() {
  docker -H "unix://$run/docker.sock" ps -aq 2>/dev/null | xargs -r docker -H "unix://$run/docker.sock" rm -f >/dev/null 2>&1 || true
  podman ps -aq 2>/dev/null | xargs -r podman rm -f -t 0 >/dev/null 2>&1 || true
  wherry -H "unix://$run/wherry.sock" ps -aq 2>/dev/null | xargs -r wherry -H "unix://$run/wherry.sock" rm -f >/dev/null 2>&1 || true
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$run" "$P/data"
  find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -depth -type d \( -path '*/wherry-bench*' -o -path '*/docker-bench*' -o -path '*/libpod_parent*' -o -path '*/buildkit*' \) -exec rmdir {} + 2>/dev/null || true
}
trap finish EXIT

cat >"$run/registry.yml" <<X
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $P/data/registry}}
http: {addr: 127.0.0.1:5000}
X
cat >"$run/containers.conf" <<X
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "${PODMAN_RUNTIME:-crun}"
[network]
network_backend = "netavark"
X
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "/run/podman-storage"\n' "$P/data/podman" >"$run/storage.conf"
printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' >"$run/registries.conf"
export CONTAINERS_CONF=$run/containers.conf CONTAINERS_STORAGE_CONF=$run/storage.conf CONTAINERS_REGISTRIES_CONF=$run/registries.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1
up() { local name=$1; shift; "$@" </dev/null >"$run/$name.log" 2>&1 & pids+=($!); echo $! >"$run/$name.pid"; }
ready() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "does not answer: $*" >&2; tail -5 "$run"/*.log >&2; exit 1; }
up registry docker-registry serve "$run/registry.yml"
# crun refuses a hybrid host whose cgroup2 tree has a controller: the peers (and oar, called directly) see none here, wherryd does.
up wherryd unshare --mount --propagation private wherryd --root "$P/data/wherry" --state /run/wherry --host "unix://$run/wherry.sock" --cgroup-parent /wherry-bench
[ -z "$dirs" ] || up wherryd-dirs unshare --mount --propagation private wherryd --layers overlay --root "$P/data/wherry-dirs" --state /run/wherry-dirs --host "unix://$run/wherryd-dirs.sock" --cgroup-parent /wherry-bench-dirs
sleep 0.5; [ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified
up dockerd dockerd --data-root "$P/data/docker" --exec-root /run/docker-exec --pidfile /run/dockerd.pid -H "unix://$run/docker.sock" \
  --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /docker-bench
if [ -n "$plugins" ]; then
  mkdir -p "$run/docker"; ln -s "$root/.cache/clients/cli-plugins" "$run/docker/"; echo '{}' >"$run/docker/config.json"
  export DOCKER_CONFIG=$run/docker PATH=$PATH:$root/.cache/clients
fi
if [ -n "$builds" ]; then
  printf '[registry."127.0.0.1:5000"]\nhttp = true\n[worker.containerd]\nenabled = false\n[worker.oci]\nbinary = "runc"\n' >"$run/buildkitd.toml"
  up buildkitd buildkitd --config "$run/buildkitd.toml" --root "$P/data/buildkit" --addr "unix://$run/buildkit.sock"
  ready buildctl --addr "unix://$run/buildkit.sock" debug workers
fi
ready curl -fs http://127.0.0.1:5000/v2/
ready wherry -H "unix://$run/wherry.sock" version
[ -z "$dirs" ] || ready wherry -H "unix://$run/wherryd-dirs.sock" version
ready docker -H "unix://$run/docker.sock" info
for image in busybox-1 python-1; do
  [ -f "$root/.cache/images/$image.tar" ] || continue
  wherry -H "unix://$run/wherry.sock" load -q -i "$root/.cache/images/$image.tar"
done
wherry -H "unix://$run/wherry.sock" tag busybox:1 127.0.0.1:5000/busybox:1
wherry -H "unix://$run/wherry.sock" push -q 127.0.0.1:5000/busybox:1
python3 "$here/bench.py" "$@"
