package container

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"wherry.dev/wherry/internal/mountinfo"
	"wherry.dev/wherry/internal/spec"
)

// TestSocketIsRenewed: a container with the engine's socket has the one of the engine's next life too, and its root owns it.
func TestSocketIsRenewed(t *testing.T) {
	e := newEngine(t)
	e.o.Socket = filepath.Join(t.TempDir(), "own.sock")
	listen := func() os.FileInfo {
		t.Helper()
		_ = os.Remove(e.o.Socket)
		l, err := net.Listen("unix", e.o.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		fi, err := os.Stat(e.o.Socket)
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	first := listen()
	e.again()
	id := e.run(request{cmd: sh("sleep 3600"), h: container.HostConfig{Binds: []string{e.o.Socket + ":/run/engine.sock:ro"}}})
	same := func(want os.FileInfo) bool {
		t.Helper()
		r := e.rec(id)
		fi, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/engine.sock", r.Pid))
		return err == nil && os.SameFile(fi, want) && fi.Sys().(*syscall.Stat_t).Uid == r.IDMap.Base
	}
	if !same(first) {
		t.Error("it has not got the socket, or its root does not own it")
	}
	e.again() // by a service manager that keeps the socket
	if !same(first) || len(mountsAt(t, e.rec(id).Pid, "/run/engine.sock")) != 1 {
		t.Error("a socket that is the same was mounted again")
	}
	second := listen()
	e.again()
	e.eventually("the socket of the engine's next life", func() bool { return same(second) })
	if flags := mountsAt(t, e.rec(id).Pid, "/run/engine.sock"); len(flags) != 1 || !slices.Contains(flags[0], "ro") {
		t.Errorf("mounted with %v", flags)
	}
}

// mountsAt are the flags of what is mounted at a path in a process's namespace, lowest first.
func mountsAt(t *testing.T, pid int, at string) (flags [][]string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	list, err := mountinfo.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.At == at {
			flags = append(flags, m.Flags)
		}
	}
	return flags
}

// Where this machine has a Docker, its socket is what was asked for.
func TestDockersSocketIsTheEngines(t *testing.T) {
	own := Options{Socket: "/run/own.sock"}
	for source, want := range map[string]string{"/var/run/docker.sock": own.Socket, "/run/docker.sock": own.Socket, "/run/docker.sock/x": "/run/docker.sock/x", "/etc": "/etc"} {
		if _, err := os.Lstat(source); !errors.Is(err, os.ErrNotExist) {
			want = source
		}
		if got := own.socketFor(source); got != want {
			t.Errorf("%s: %s is mounted, not %s", source, got, want)
		}
		if got := new(Options).socketFor(source); got != source {
			t.Errorf("%s, by an engine with no socket: %s", source, got)
		}
	}
}

// TestManyMountsAreListed: ten times the mounts are ten times the work of ps, not a hundred times: everybody else's list waits for it.
func TestManyMountsAreListed(t *testing.T) {
	work := func(n int) float64 {
		r := Record{HostConfig: &container.HostConfig{Tmpfs: map[string]string{}}}
		for i := range n {
			at := fmt.Sprintf("/t%d", i)
			r.HostConfig.Tmpfs["/"+at] = ""
			r.Mounts = append(r.Mounts, spec.Mount{Type: mount.TypeTmpfs, Destination: at})
		}
		r.Mounts = append(r.Mounts, spec.Mount{Type: mount.TypeTmpfs, Destination: "/by-mount"})
		if shown := r.shown(); len(shown) != 1 || shown[0].Destination != "/by-mount" {
			t.Fatalf("%v", shown)
		}
		return testing.AllocsPerRun(1, func() { r.shown() })
	}
	if few, many := work(100), work(1000); many > 20*few {
		t.Errorf("%v for 100, %v for 1000", few, many)
	}
}
