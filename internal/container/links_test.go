package container

import (
	"context"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// TestLinks: a link is to a container, not to a name, and gives it a further one.
func TestLinks(t *testing.T) {
	e := newEngine(t)
	ctx := context.Background()
	bridge := func(links ...string) container.HostConfig {
		return container.HostConfig{NetworkMode: "bridge", Links: links}
	}
	if _, err := e.tryCreate(request{cmd: sh("true"), h: bridge("nobody")}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a link to nobody: %v", err)
	}
	e.create(request{name: "other", cmd: sh("true"), h: container.HostConfig{NetworkMode: "host"}})
	if _, err := e.tryCreate(request{cmd: sh("true"), h: bridge("other")}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a link to one on the host's network: %v", err)
	}
	db := e.run(request{name: "db", cmd: sh("sleep 3600"), h: bridge()})
	app := e.create(request{name: "app", cmd: sh("grep -w mysql /etc/hosts"), h: bridge("db:/mysql", "db")})
	if err := e.Rename(ctx, db, "old"); err != nil {
		t.Fatal(err)
	}
	e.create(request{name: "db", cmd: sh("true"), h: bridge()})
	if err := e.Rename(ctx, app, "web"); err != nil {
		t.Fatal(err)
	}
	about, err := e.Inspect(ctx, app)
	if want := []string{"/old:/web/mysql", "/old:/web/db"}; err != nil || !slices.Equal(about.HostConfig.Links, want) {
		t.Errorf("links are shown as %v, %v; want %v", about.HostConfig.Links, err, want)
	}
	if about, err = e.Inspect(ctx, "web/mysql"); err != nil || about.ID != db {
		t.Errorf("web/mysql is %s, %v", about.ID, err)
	}
	if _, err = e.Inspect(ctx, "web/else"); !errdefs.IsNotFound(err) {
		t.Errorf("web/else: %v", err)
	}
	list, err := e.List(ctx, ListOptions{All: true, Filters: map[string]map[string]bool{"id": {db: true}}})
	if err != nil || len(list) != 1 || !slices.Equal(list[0].Names, []string{"/old", "/web/db", "/web/mysql"}) {
		t.Errorf("list: %+v, %v", list, err)
	}
	answer := e.arm(app, container.WaitConditionNextExit)
	e.start(app)
	if code := e.take(answer); code != 0 {
		t.Errorf("the link's alias is not in /etc/hosts: exit %d", code)
	}
}
