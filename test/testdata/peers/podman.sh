#!/bin/bash
# Podman with oar in runc's place: podman.sh OAR IMAGE-ARCHIVE FOLDER. Prints what containers print, and how they end.
set -u
oar=$1 image=$2 dir=$3
mount -t tmpfs run /run && mkdir -p /run/lock
ip link set lo up
printf '[containers]\nlog_driver = "k8s-file"\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n[network]\nnetwork_backend = "netavark"\n' >"$dir/containers.conf"
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/storage"\nrunroot = "/run/podman-storage"\n' "$dir" >"$dir/storage.conf"
export CONTAINERS_CONF=$dir/containers.conf CONTAINERS_STORAGE_CONF=$dir/storage.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1
podman() { command podman --runtime "$oar" "$@" 2>&1; }
o=(--net none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --cgroup-parent /wherry-e2e-podman)
podman load -q -i "$image" >/dev/null
podman run --rm "${o[@]}" busybox:1 sh -c 'echo "run by $(hostname | wc -c)"; exit 7'; echo "run: $?"
podman run --rm "${o[@]}" busybox:1 no-such | grep -o 'executable file not found'; echo "no such: ${PIPESTATUS[0]}"
id=$(podman run -d --name box "${o[@]}" busybox:1 sleep 1000)
podman exec box sh -c 'echo further; exit 3'; echo "exec: $?"
podman exec -t box tty; echo "exec -t: $?"
podman update --memory 64m box >/dev/null; cat "/sys/fs/cgroup/memory/wherry-e2e-podman/libpod-$id/memory.limit_in_bytes"
podman pause box >/dev/null && podman inspect box --format '{{.State.Status}}'; podman unpause box >/dev/null
podman kill box >/dev/null; podman wait box; podman start box >/dev/null && podman inspect box --format '{{.State.Status}}'
podman rm -f -t 0 box >/dev/null; echo "rm: $?"
find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -depth -type d \( -path '*/wherry-e2e-podman*' -o -path '*/libpod_parent*' \) -exec rmdir {} + 2>/dev/null
true
