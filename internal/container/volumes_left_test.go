package container

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/volume"
)

// volumes lists what there is.
func (e *engine) volumes() (names []string) {
	e.t.Helper()
	list, err := e.o.Volumes.List(context.Background(), nil)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names
}

// TestVolumesOfCreationCutOff: an engine that was killed between making an anonymous volume and the container's record leaves neither.
func TestVolumesOfCreationCutOff(t *testing.T) {
	e := newEngine(t)
	ctx, id := context.Background(), newID()
	if _, err := e.o.Volumes.CreateFor(ctx, volume.CreateRequest{}, id); err != nil {
		t.Fatal(err)
	}
	named, err := e.o.Volumes.CreateFor(ctx, volume.CreateRequest{Name: "named"}, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(e.o.containersDir(), id), 0o700); err != nil {
		t.Fatal(err)
	}
	other := e.create(request{name: "other", c: container.Config{Volumes: map[string]struct{}{"/data": {}}}})
	e.again()
	if got := e.volumes(); len(got) != 2 || exists(filepath.Join(e.o.containersDir(), id)) {
		t.Errorf("volumes %v: want %s and that of %s", got, named.Name, other)
	}
	if err := e.Remove(ctx, other, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	e.again()
	if got := e.volumes(); len(got) != 2 {
		t.Errorf("volumes %v: who removes a container without its volumes keeps them", got)
	}
}

// TestVolumesOfRemovalThatGoesOn: what the next life goes on with is the removal that was asked for.
func TestVolumesOfRemovalThatGoesOn(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	for name, with := range map[string]bool{"with": true, "without": false} {
		id := e.create(request{name: name, c: container.Config{Volumes: map[string]struct{}{"/data": {}}}})
		before := len(e.volumes())
		block := filepath.Join(e.o.sharedMemory(id), "in the way")
		if err := os.MkdirAll(block, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := e.Remove(ctx, id, RemoveOptions{Volumes: with}); err == nil {
			t.Fatal("nothing was in the way of the removal")
		}
		if err := os.Remove(block); err != nil {
			t.Fatal(err)
		}
		e.again()
		e.eventually("it is gone", func() bool { _, err := e.index.find(id); return err != nil })
		if gone := before - len(e.volumes()); gone == 1 != with {
			t.Errorf("%s its volumes: %d of them went", name, gone)
		}
	}
}
