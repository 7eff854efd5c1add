#!/bin/bash
# Docker's own engine with oar as a further runtime: dockerd.sh OAR IMAGE-ARCHIVE FOLDER. Prints what containers print, and how they end.
set -u
oar=$1 image=$2 dir=$3
mount -t tmpfs run /run && mkdir -p /run/lock
ip link set lo up
export DOCKER_HOST=unix:///run/docker.sock
dockerd --data-root "$dir/docker" --exec-root /run/docker-exec --pidfile /run/dockerd.pid -H "$DOCKER_HOST" --bridge none --iptables=false --ip6tables=false \
  --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /wherry-e2e-dockerd --add-runtime "oar=$oar" --init-path "$(command -v catatonit)" >"$dir/dockerd.log" 2>&1 </dev/null &
engine=$!
for _ in $(seq 300); do docker info >/dev/null 2>&1 && break; sleep 0.1; done
docker info >/dev/null 2>&1 || tail -5 "$dir/dockerd.log"
o=(--runtime oar --network none)
docker load -q -i "$image" >/dev/null
docker run --rm "${o[@]}" busybox:1 sh -c 'echo "run by $(hostname | wc -c)"; exit 7'; echo "run: $?"
docker run --rm "${o[@]}" busybox:1 no-such 2>&1 | grep -o 'executable file not found'; echo "no such: ${PIPESTATUS[0]}"
echo 'from outside' | docker run --rm -i "${o[@]}" busybox:1 cat; echo "stdin: $?"
id=$(docker run -d --name box -m 128m "${o[@]}" busybox:1 sleep 1000)
docker exec box sh -c 'echo further; exit 3'; echo "exec: $?"
docker update -m 64m --memory-swap 128m box >/dev/null; cat "/sys/fs/cgroup/memory/wherry-e2e-dockerd/$id/memory.limit_in_bytes"
docker pause box >/dev/null && docker inspect box --format '{{.State.Status}}'; docker unpause box >/dev/null
docker kill box >/dev/null; docker wait box; docker start box >/dev/null && docker inspect box --format '{{.State.Status}}'
docker rm -f box >/dev/null; echo "rm: $?"
docker run -d --name limited -m 64m --pids-limit 50 --health-cmd 'test -e /healthy' --health-interval 0.1s --health-retries 1 "${o[@]}" busybox:1 \
  sh -c 'echo begun; trap "echo asked; exit 5" TERM; while :; do sleep 0.05; done' >/dev/null
health() { docker inspect limited --format '{{.State.Health.Status}}'; }
for want in unhealthy healthy; do
  for _ in $(seq 600); do [ "$(health)" = $want ] && break; sleep 0.1; done
  health; docker exec limited touch /healthy
done
docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' limited | grep -c '/ 64MiB [1-9]'
docker stop -t 10 limited >/dev/null; docker logs limited; docker inspect limited --format '{{.State.ExitCode}}'
docker rm limited >/dev/null; echo "rm: $?"
docker run --rm --init "${o[@]}" busybox:1 cat /proc/1/comm
docker run --rm -t "${o[@]}" busybox:1 tty; echo "-t: $?"
kill $engine; wait $engine
find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -depth -type d -path '*/wherry-e2e-dockerd*' -exec rmdir {} + 2>/dev/null
true
