#!/bin/bash
# Builds the clients that the end-to-end tests drive, from source through the Go module proxy: docker's buildx and compose plugins, buildctl,
# programs that use testcontainers-go and Traefik's provider, and act; and installs those of Node.js. go.mod and go.sum here and in the folders, and node's lock file, pin
# them; they are kept in $1 between runs. Further arguments are more programs of BuildKit's.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
out=$(mkdir -p "${1:?usage: build.sh DIR [buildkitd]}" && cd "$1" && pwd); shift
cd "$here"
stamp=$(cat build.sh node/package-lock.json $(find . -name go.mod -o -name go.sum -o -name '*.go' | sort) | sha256sum | cut -c1-16)
exec 9>"$out/lock"; flock 9
[ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] || rm -rf "$out"/{buildx,cmd,buildctl,buildkitd,testcontainers.test,reaper,traefik,act,node,stamp}
packages=()
add() { [ -x "$out/${1##*/}" ] || packages+=("$1"); }
add github.com/docker/buildx/cmd/buildx
add github.com/docker/compose/v5/cmd
for program in buildctl "$@"; do add "github.com/moby/buildkit/cmd/$program"; done
if [ ${#packages[@]} -gt 0 ]; then
  # compose asks buildx for its version, which the linker sets.
  version() { go list -m -f '{{.Version}}' "$1"; }
  flags="-s -w -X github.com/docker/buildx/version.Version=$(version github.com/docker/buildx)"
  flags+=" -X github.com/docker/compose/v5/internal.Version=$(version github.com/docker/compose/v5)"
  CGO_ENABLED=0 nice go build -buildvcs=false -trimpath -ldflags="$flags" -o "$out/" "${packages[@]}"
fi
if [ ! -x "$out/reaper" ]; then
  (cd testcontainers
  CGO_ENABLED=0 nice go test -c -vet=off -buildvcs=false -trimpath -ldflags='-s -w' -o "$out/testcontainers.test" .
  CGO_ENABLED=0 nice go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$out/reaper" ./reaper)
fi
[ -x "$out/act" ] || (cd act; CGO_ENABLED=0 nice go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$out/act" github.com/nektos/act)
[ -x "$out/traefik" ] || (cd traefik; CGO_ENABLED=0 nice go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$out/traefik" .)
# What Node.js runs, as its lock file says.
if [ ! -d "$out/node/node_modules" ]; then
  rm -rf "$out/node" && mkdir -p "$out/node"
  cp node/package.json node/package-lock.json "$out/node/"
  (cd "$out/node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
fi
# As the docker command line looks for them.
mkdir -p "$out/cli-plugins"
ln -sf ../buildx "$out/cli-plugins/docker-buildx"
ln -sf ../cmd "$out/cli-plugins/docker-compose"
echo "$stamp" >"$out/stamp"
