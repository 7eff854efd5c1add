package container

import (
	"testing"

	"github.com/moby/moby/api/types/container"
)

// TestHalt: when the host is shut down each container ends by its own signal, nothing is started any more, and the next boot's engine
// starts what its policy wants running.
func TestHalt(t *testing.T) {
	e := newEngine(t)
	ends := func(code string) []string {
		return sh("trap 'exit " + code + "' USR1; echo ready; while :; do sleep 0.02; done")
	}
	usr1 := container.Config{StopSignal: "USR1"}
	wanted := e.run(request{c: usr1, name: "wanted", cmd: ends("3"), h: restarting("unless-stopped", 0)})
	plain := e.run(request{c: usr1, name: "plain", cmd: ends("4")})
	gone := e.run(request{c: usr1, name: "gone", cmd: ends("0"), h: container.HostConfig{AutoRemove: true}})
	stopped := e.run(request{name: "stopped", cmd: sh("sleep 1000"), h: restarting("unless-stopped", 0)})
	if err := e.Stop(t.Context(), stopped, StopOptions{Timeout: new(int)}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{wanted, plain, gone} {
		e.eventually("it heeds signals", func() bool { return e.output(id) == "ready\n" })
	}
	Halt(t.Context(), e.Service)
	for id, code := range map[string]int{wanted: 3, plain: 4} {
		if r := e.rec(id); r.Status != Exited || r.ExitCode != code || r.Stopped {
			t.Errorf("%s: %s %d, stopped: %t", r.Name, r.Status, r.ExitCode, r.Stopped)
		}
	}
	e.eventually("the disposable one is gone", func() bool { _, err := e.index.find(gone); return err != nil })
	e.again()
	e.eventually("it runs again", func() bool { return e.rec(wanted).Status == Running })
	for _, id := range []string{plain, stopped} {
		if r := e.rec(id); r.Status != Exited {
			t.Errorf("%s: %s", r.Name, r.Status)
		}
	}
}
