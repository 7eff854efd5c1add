package container

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/image"
)

// TestOriginOutlivesItsTag: what a container was made of is known when the tag has moved, has gone, and in the engine's next life.
func TestOriginOutlivesItsTag(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	old, err := e.images.Means(ctx, "busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	id := e.create(request{name: "made", c: container.Config{}})
	fixed := e.create(request{name: "fixed", c: container.Config{Image: "busybox:1@" + old.String()}})
	was := originOf(t, e, id)
	want := Origin{Reference: "busybox:1", Name: "docker.io/library/busybox:1", Digest: old, Manifest: was.Manifest, Platform: was.Platform, Pinned: "busybox@" + old.String()}
	if was != want || was.Manifest == "" || !strings.HasPrefix(was.Platform, "linux/") {
		t.Fatalf("%+v is not %+v", was, want)
	}
	if of := originOf(t, e, fixed); of.Pinned != want.Pinned || of.Name != want.Name || of.Reference != "busybox:1@"+old.String() {
		t.Errorf("by tag and digest: %+v", of)
	}
	shows(t, e, id, "busybox:1", nil)

	now, err := e.images.Import(ctx, bytes.NewReader(tools.tar), image.ImportOptions{Ref: "busybox:1", Changes: []string{"ENV NEW=1"}})
	if err != nil || now == old {
		t.Fatalf("move the tag: %v %s", err, now)
	}
	shows(t, e, id, old.String(), &Move{Reference: "busybox:1", Now: now})
	shows(t, e, fixed, "busybox:1@"+old.String(), nil)
	if _, err := e.images.Remove(ctx, "busybox:1", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	e.again()
	shows(t, e, id, old.String(), &Move{Reference: "busybox:1"})
	if is := originOf(t, e, id); is != want {
		t.Errorf("in the next life: %+v is not %+v", is, want)
	}
	byID := e.create(request{name: "by-id", c: container.Config{Image: old.Encoded()[:12]}})
	if of := originOf(t, e, byID); of.Name != "" || of.Pinned != "" || of.Digest != old {
		t.Errorf("by id: %+v", of)
	}
}

func originOf(t *testing.T, e *engine, id string) Origin {
	t.Helper()
	about, err := e.Inspect(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return about.Wherry.Image
}

// shows looks at a container's line in the list.
func shows(t *testing.T, e *engine, id, name string, moved *Move) {
	t.Helper()
	list, err := e.List(context.Background(), ListOptions{All: true, Filters: only("id", id)})
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	is, ok := Moved(context.Background(), e.Service, list)[id]
	if list[0].Image != name || ok != (moved != nil) || ok && is != *moved {
		t.Errorf("the list shows %s, moved %v %+v", list[0].Image, ok, is)
	}
}
