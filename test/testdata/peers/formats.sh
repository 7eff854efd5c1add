#!/bin/bash
# Images from Wherry to Podman and Docker's engine and back, in every format that both know: formats.sh OAR IMAGE-ARCHIVE FOLDER.
# Prints what each made of what it was given. WHERRY names the folder of wherry and wherryd.
set -u
oar=$1 image=$2 dir=$3
PATH=$(dirname "$oar"):$PATH
mount -t tmpfs run /run && mkdir -p /run/lock
ip link set lo up
cd "$dir" || exit 1
printf '[containers]\nlog_driver = "k8s-file"\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' >containers.conf
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/storage"\nrunroot = "/run/podman-storage"\n' "$dir" >storage.conf
printf '{"default":[{"type":"insecureAcceptAnything"}]}' >policy.json
export CONTAINERS_CONF=$dir/containers.conf CONTAINERS_STORAGE_CONF=$dir/storage.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1
export WHERRY_HOST=unix://$dir/wherry.sock DOCKER_HOST=unix:///run/docker.sock DOCKER_CONFIG=$dir/config
registry=127.0.0.1:5000
mkdir config && echo '{}' >config/config.json # podman wants it to be there
printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: %s}\n' "$dir" "$registry" >registry.yml
docker-registry serve registry.yml >registry.log 2>&1 </dev/null & pids=$!
dockerd --data-root "$dir/docker" --exec-root /run/docker-exec --pidfile /run/dockerd.pid -H "$DOCKER_HOST" --bridge none --iptables=false --ip6tables=false \
  --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /wherry-e2e-dockerd >dockerd.log 2>&1 </dev/null & pids="$pids $!"
wherryd --root "$dir/root" --state "$dir/state" --host "$WHERRY_HOST" --cgroup-parent /wherry-e2e-formats >wherryd.log 2>&1 </dev/null & pids="$pids $!"
for _ in $(seq 300); do docker info >/dev/null 2>&1 && wherry version >/dev/null 2>&1 && break; sleep 0.1; done
podman() { command podman "$@" 2>&1; }

# One image for two platforms, in the store as an index.
wherry load -q -i "$image" >/dev/null
container=$(wherry create --network none busybox:1)
wherry export "$container" | wherry import --platform linux/arm64 - arm:1 >/dev/null
wherry rm "$container" >/dev/null
wherry manifest create two:1 busybox:1 arm:1 >/dev/null

echo 'to podman'
wherry save -o both.tar two:1; wherry save --format oci-archive -o oci.tar two:1; wherry save --format docker-archive -o docker.tar two:1
wherry save --format oci-dir -o layout two:1
for file in both.tar oci.tar docker.tar layout; do
  podman load -q -i $file | grep -c 'Loaded image'; podman images -q | xargs podman inspect --format '{{.Architecture}} {{len .RootFS.Layers}}' | sort -u
  podman rmi -af >/dev/null
done
echo 'from podman'
podman load -q -i "$image" >/dev/null
for format in docker-archive oci-archive oci-dir; do
  podman save -q --format $format -o podman-$format busybox:1
  wherry load -q -i podman-$format | sed 's/sha256:.*/ID/'
done
wherry run --rm --network none busybox:1 echo "runs here"

echo 'to docker'
for file in both.tar docker.tar; do
  docker load -q -i $file; docker run --rm --network none two:1 echo "runs there"; docker rmi -f two:1 >/dev/null
done
echo 'from docker'
docker load -q -i "$image" >/dev/null; docker tag busybox:1 old:1; docker save -o old.tar busybox:1 old:1
wherry load -q -i old.tar | sort
wherry run --rm --network none old:1 echo "runs here"

echo 'through a registry'
wherry manifest push two:1 $registry/two:1 | tail -1 | grep -c '^sha256:'
podman pull -q --tls-verify=false $registry/two:1 | wc -l; podman run --rm --net none --runtime "$oar" --cgroup-parent /wherry-e2e-podman $registry/two:1 echo 'runs there'
docker pull -q $registry/two:1; docker manifest inspect --insecure $registry/two:1 | grep '"architecture"' | tr -d ' \t,'
docker pull -q --platform linux/arm64 $registry/two:1; docker inspect --format '{{.Architecture}}' $registry/two:1
podman manifest create theirs:1 >/dev/null
podman manifest add --tls-verify=false --all theirs:1 docker://$registry/two:1 >/dev/null
podman manifest push --tls-verify=false -q --all theirs:1 docker://$registry/theirs:1 >/dev/null
wherry pull -q --all-platforms $registry/theirs:1
wherry image inspect --platform linux/arm64 --format '{{.Architecture}}' $registry/theirs:1
wherry manifest inspect $registry/theirs:1 | grep '"architecture"' | tr -d ' \t,'
wherry image copy -a $registry/theirs:1 $registry/copied:1 >/dev/null && docker manifest inspect --insecure $registry/copied:1 | grep -c '"architecture"'
kill $pids; wait $pids 2>/dev/null
find /sys/fs/cgroup -mindepth 1 -maxdepth 4 -depth -type d \( -path '*/wherry-e2e-*' -o -path '*/libpod_parent*' \) -exec rmdir {} + 2>/dev/null
true
