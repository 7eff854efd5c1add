# `make demo` shows Wherry on this machine; `make test` proves it. Both install what they need and leave nothing running.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO ?= go
LDFLAGS = -s -w -X wherry.dev/wherry/internal/version.Version=$(VERSION) -X github.com/moby/buildkit/version.Version=$(shell $(GO) list -m -f '{{.Version}}' github.com/moby/buildkit)

.PHONY: build demo test unit e2e vm race images tools vet bench clean

# oar begins at code of its own (cmd/oar/entry_*.s), which the Go runtime's start follows. The linker leaves a file in the page cache in single
# pages; written in one piece, as an installation writes it, a program starts half a millisecond earlier. The engine, which starts once, would have all of its
# file counted as its memory.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/wherry ./cmd/wherryd ./cmd/wherry-build ./cmd/wherry-verify
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS) -E oar_entry' -o bin/ ./cmd/oar
	for b in wherry oar; do dd if=bin/$$b of=bin/$$b.new bs=64M status=none && chmod 755 bin/$$b.new && mv bin/$$b.new bin/$$b || exit 1; done

demo: build
	test/demo.sh

test: tools build images vet unit race e2e vm

tools:
	test/tools.sh
	bench/peers.sh

# debootstrap waits for one package after another, so the clients are compiled meanwhile.
images:
	test/clients/build.sh .cache/clients & test/images/build.sh .cache/images && wait $$!

vet:
	$(GO) vet ./...

# Packages are tested one beside another; those that measure processes or share control groups make their own.
unit:
	$(GO) test -count=1 -timeout 20m $$($(GO) list ./... | grep -v '/wherry/test\($$\|/vm$$\)')

race:
	$(GO) test -race -count=1 -timeout 20m ./internal/event ./internal/logs ./internal/shim ./internal/task ./internal/volume ./internal/container

e2e:
	$(GO) test -count=1 -timeout 30m ./test
	WHERRY_TEST_LAYERS=overlay $(GO) test -count=1 -timeout 10m -run '$(OVERLAY)' ./test

# What of the end-to-end tests is about layers runs with directories too, as kernels before 6.12 have them.
OVERLAY = ^TestWherry$$/^(layers|disk|drift|formats|survive|hello|signatures|build-reproducible)$$|^Test(BadImages|LayersStayInside|PruneRaces|PullAfterKill|ImagesGoToPeersAndBack|BuildsAreReproducible)$$

# The same binaries on Debian's kernel with control groups of version 2 only, in a machine that qemu emulates; the plug is pulled there.
vm: build tools images
	test/vm/build.sh .cache/vm
	$(GO) test -count=1 -timeout 20m ./test/vm

bench: build
	bench/run.sh

clean:
	rm -rf bin .cache
