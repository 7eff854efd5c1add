package container

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestStopsThatCannotBeRecorded: what a user has stopped stays stopped, also where the disk did not take it and the engine ends then.
func TestStopsThatCannotBeRecorded(t *testing.T) {
	e := newEngine(t)
	ended := e.run(request{name: "ended", cmd: sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done"), h: restarting("unless-stopped", 0)})
	wanted := e.run(request{name: "wanted", cmd: sh("trap 'exit 6' USR1; echo ready; while :; do sleep 0.02; done"), h: restarting("unless-stopped", 0)})
	ids := []string{ended, wanted}
	for _, id := range ids {
		e.eventually("it heeds signals", func() bool { return e.output(id) == "ready\n" })
		if err := errors.Join(os.RemoveAll(filepath.Join(e.o.containersDir(), id, recordFile+".new")), os.Mkdir(filepath.Join(e.o.containersDir(), id, recordFile+".new"), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Stop(t.Context(), ended, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := e.index.find(wanted)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (life{e.Service, c}).beginStop(); err != nil { // and the engine ends before the container does
		t.Fatal(err)
	}
	e.close()
	for _, id := range ids {
		if err := os.Remove(filepath.Join(e.o.containersDir(), id, recordFile+".new")); err != nil {
			t.Fatal(err)
		}
	}
	e.open()
	if err := e.Kill(t.Context(), wanted, "USR1"); err != nil {
		t.Fatal(err)
	}
	e.eventually("it ends", func() bool { return e.rec(wanted).Status != Running })
	for i, id := range ids {
		if r := e.rec(id); r.Status != Exited || r.ExitCode != 5+i || !r.Stopped {
			t.Errorf("%s: %s %d, stopped: %t", r.Name, r.Status, r.ExitCode, r.Stopped)
		}
	}
}
