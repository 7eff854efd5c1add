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
podman run -d --name limited --memory 64m --pids-limit 50 --health-cmd 'test -e /healthy' --health-interval disable "${o[@]}" busybox:1 \
  sh -c 'echo begun; trap "echo asked; exit 5" TERM; while :; do sleep 0.05; done' >/dev/null
podman healthcheck run limited >/dev/null || echo unhealthy; podman exec limited touch /healthy; podman healthcheck run limited >/dev/null && echo healthy
podman stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' limited | grep -c '/ 67.11MB [1-9]'
podman stop -t 10 limited >/dev/null; podman logs limited; podman inspect limited --format '{{.State.ExitCode}}'
podman rm limited >/dev/null; echo "rm: $?"
podman run --rm --init --init-path "$(command -v catatonit)" "${o[@]}" busybox:1 cat /proc/1/comm
find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -depth -type d \( -path '*/wherry-e2e-podman*' -o -path '*/libpod_parent*' \) -exec rmdir {} + 2>/dev/null
true
