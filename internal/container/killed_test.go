package container

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
	networks "wherry.dev/wherry/internal/network"
	"wherry.dev/wherry/internal/snapshot"
	"wherry.dev/wherry/internal/volume"
)

const victimVariable = "WHERRY_CONTAINER_VICTIM" // root, state, oar, group and a seed, in lines; and a container to start and the step at which to die

// TestEngineKilled: kill -9 at any moment, in the middle of creations, starts, stops and removals. The next life finds what runs, knows
// exact exit codes, and nothing is left that it does not know.
func TestEngineKilled(t *testing.T) {
	e := newEngine(t)
	e.run(request{name: "steady", cmd: sh("sleep 3600")})
	pid := e.rec("steady").Pid
	for round := range 6 {
		e.close()
		victim := exec.Command("/proc/self/exe")
		victim.Env = append(os.Environ(), victimVariable+"="+strings.Join([]string{e.o.Root, e.o.State, e.o.Oar, e.o.CgroupParent, strconv.Itoa(round)}, "\n"))
		victim.Stderr = os.Stderr
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = victim.Wait()
		e.open()
		if r := e.rec("steady"); r.Status != Running || r.Pid != pid {
			t.Fatalf("steady is %s (%d)", r.Status, r.Pid)
		}
		e.checkAll()
	}
}

// checkAll holds what the engine says against the kernel.
func (e *engine) checkAll() {
	known := map[string]bool{}
	for _, c := range e.index.all() {
		known[c.id] = true
		e.eventually("the record is true of container "+c.record().Name, func() bool {
			r := c.record()
			dead := r.Pid == 0 || errors.Is(unix.Kill(r.Pid, 0), unix.ESRCH)
			want, exact := strings.CutPrefix(r.Name, "exits-")
			code, _, _ := strings.Cut(want, "-")
			switch {
			case r.Status.Alive():
				return !dead
			case exact && r.Status == Exited && r.HasRun && !r.Stopped:
				return dead && strconv.Itoa(r.ExitCode) == code
			}
			return dead
		})
	}
	groups, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", e.o.CgroupParent, "*"))
	for _, g := range groups {
		id := filepath.Base(g)
		e.eventually("nothing lives in the group of an unknown container "+id, func() bool {
			b, err := os.ReadFile(filepath.Join(g, "cgroup.procs"))
			return known[id] || err != nil || len(b) == 0
		})
	}
}

// victim is an engine that works until it is killed.
func victim(lines string) {
	f := strings.Split(lines, "\n")
	ctx := context.Background()
	seed, _ := strconv.Atoi(f[4])
	o := Options{Root: f[0], State: f[1], Oar: f[2], CgroupParent: f[3], Events: event.New()}
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
	}
	var err error
	o.Volumes, err = volume.Open(volume.Options{Root: filepath.Join(o.Root, "volumes"), Events: o.Events})
	must(err)
	o.Images, err = image.Open(ctx, image.Options{Root: o.Root, Layers: snapshot.Auto, Mounts: filepath.Join(o.State, "layers"), Oar: o.Oar, Events: o.Events})
	must(err)
	o.Networks, err = networks.Open(ctx, networks.Options{Root: o.Root, State: o.State, Events: o.Events})
	must(err)
	if len(f) > 6 {
		o.Trace = func(id, step string, _ time.Duration) {
			if step == f[6] {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		}
	}
	s, err := Open(ctx, o)
	must(err)
	if len(f) > 6 {
		if err = s.Start(ctx, f[5]); errdefs.IsNotModified(err) { // it runs
			now := 0
			err = s.Restart(ctx, f[5], StopOptions{Timeout: &now})
		}
		must(err)
		return
	}
	for w := range 2 {
		go work(s, rand.New(rand.NewPCG(uint64(seed), uint64(w))))
	}
	time.Sleep(10 * time.Second) // it is killed long before
}

func work(s *Service, random *rand.Rand) {
	ctx, now := context.Background(), 0
	for i := range 6 {
		code := random.IntN(100)
		h := container.HostConfig{NetworkMode: "none", AutoRemove: random.IntN(3) == 0}
		if i == 0 {
			h = container.HostConfig{NetworkMode: "none", RestartPolicy: container.RestartPolicy{Name: "always"}}
		}
		made, err := s.Create(ctx, CreateRequest{Name: fmt.Sprintf("exits-%d-%d", code, random.IntN(1<<30)), HostConfig: &h,
			Config: &container.Config{Image: "busybox:1", Cmd: sh(fmt.Sprintf("sleep 0.%d; exit %d", random.IntN(5), code))}})
		if err != nil {
			continue
		}
		_ = s.Start(ctx, made.ID)
		switch random.IntN(4) {
		case 0:
			_ = s.Stop(ctx, made.ID, StopOptions{Timeout: &now})
		case 1:
			_ = s.Remove(ctx, made.ID, RemoveOptions{Force: true})
		}
	}
}
