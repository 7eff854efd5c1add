#!/bin/bash
# Podman of a user who is not root, with oar in crun's place: podman-rootless.sh OAR IMAGE-ARCHIVE FOLDER, called by root in namespaces of
# its own. The user is daemon, whose subordinate ids are bound over those of the machine. Prints what containers print, and how they end.
set -u
oar=$1 image=$2 dir=$3
if [ "$(id -u)" = 0 ]; then
  mount -t proc proc /proc && mount -t tmpfs run /run && mkdir -p /run/lock && ip link set lo up
  cp "$oar" "$dir/oar" && cp "$image" "$dir/image.tar" && cp "$0" "$dir/script"
  echo daemon:200000:65536 >"$dir/ids" && mount --bind "$dir/ids" /etc/subuid && mount --bind "$dir/ids" /etc/subgid
  chmod 755 "$dir" "$(dirname "$dir")" && chown -R daemon:daemon "$dir"
  exec setpriv --reuid daemon --regid daemon --clear-groups "$dir/script" "$dir/oar" "$dir/image.tar" "$dir"
fi
printf '[containers]\nlog_driver = "k8s-file"\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n[network]\nnetwork_backend = "netavark"\n' >"$dir/containers.conf"
export CONTAINERS_CONF=$dir/containers.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1
podman() { command podman --log-level error --storage-driver "$driver" --runtime "$oar" "$@" 2>&1; }
maps() { sed 's/^ *//; s/  */ /g' | tr '\n' ,; }
for driver in vfs overlay; do
  export HOME=$dir/home-$driver XDG_RUNTIME_DIR=$dir/run-$driver
  mkdir -m 700 "$HOME" "$XDG_RUNTIME_DIR" && cd "$HOME" || exit 1
  echo "$driver:"
  podman load -q -i "$image" >/dev/null
  podman run --rm --net none busybox:1 sh -c 'echo "run by $(id -u)"; cat /proc/self/uid_map; exit 7' | maps; echo " run: ${PIPESTATUS[0]}"
done
podman run --rm --net host --user 33:33 busybox:1 sh -c 'echo "$(id -u):$(id -g)"; test -d /sys/class/net/lo; echo "network: $?"'
podman run --rm --net none --userns keep-id busybox:1 sh -c 'id -u; cat /proc/self/uid_map; touch /tmp/x && stat -c %u /tmp/x' | maps; echo " keep-id: ${PIPESTATUS[0]}"
podman run --rm --net none busybox:1 no-such | grep -o 'executable file not found'; echo "no such: ${PIPESTATUS[0]}"
podman run --rm --net none --pid host busybox:1 sh -c 'test "$(readlink /proc/self)" != 1 && echo "the host'"'"'s processes"'
podman run --rm --net none --privileged busybox:1 sh -c 'test -c /dev/fuse || test -c /dev/kmsg; echo "privileged: $?"'
podman run -d --name box --net none --tmpfs /t busybox:1 sleep 1000 >/dev/null
podman exec box sh -c 'echo further; exit 3'; echo "exec: $?"
podman exec --user 33 box id -u
podman exec -t box tty; echo "exec -t: $?"
podman kill box >/dev/null; podman wait box; podman start box >/dev/null && podman inspect box --format '{{.State.Status}}'
podman rm -f -t 0 box >/dev/null; echo "rm: $?"
