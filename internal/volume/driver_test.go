package volume

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/plugin"
)

// keeper is a volume driver: a real program's protocol on a real socket. Its volumes are folders.
type keeper struct {
	t   *testing.T
	dir string

	mu    sync.Mutex // guards what follows
	calls []string
	vols  map[string]map[string]string
	mount map[string]bool // what is mounted, as NAME ID
	fail  string          // of the next call
}

// keep listens at dir/NAME.sock until the test's end.
func keep(t *testing.T, dir, name string) *keeper {
	t.Helper()
	k := &keeper{t: t, dir: t.TempDir(), vols: map[string]map[string]string{}, mount: map[string]bool{}}
	l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: k}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return k
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q request
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Header.Get("Accept") != "application/vnd.docker.plugins.v1.2+json" {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/VolumeDriver.")
	k.calls = append(k.calls, strings.TrimSpace(method+" "+q.Name))
	answer := map[string]any{}
	_, has := k.vols[q.Name]
	at := filepath.Join(k.dir, q.Name)
	if k.fail == method {
		answer["Err"] = "the disks are out of order"
		w.WriteHeader(http.StatusInternalServerError)
		method = ""
	}
	switch method {
	case "/Plugin.Activate":
		answer["Implements"] = []string{"VolumeDriver", "LogDriver"}
	case "Create":
		k.vols[q.Name] = q.Opts
		if err := os.MkdirAll(at, 0o755); err != nil {
			k.t.Error(err)
		}
	case "Get":
		if has {
			answer["Volume"] = map[string]any{"Name": q.Name, "Mountpoint": at, "Status": map[string]string{"disks": "3"}}
		} else {
			answer["Err"] = "no such volume"
		}
	case "List":
		var list []map[string]string
		for name := range k.vols {
			list = append(list, map[string]string{"Name": name})
		}
		answer["Volumes"] = list
	case "Capabilities":
		answer["Capabilities"] = map[string]string{"Scope": "global"}
	case "Mount":
		if !has {
			answer["Err"] = "no such volume"
			break
		}
		k.mount[q.Name+" "+q.ID] = true
		answer["Mountpoint"] = at
	case "Unmount":
		if !k.mount[q.Name+" "+q.ID] {
			answer["Err"] = "not mounted"
		}
		delete(k.mount, q.Name+" "+q.ID)
	case "Remove":
		delete(k.vols, q.Name)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// took returns what has been asked for since the last time.
func (k *keeper) took() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := strings.Join(k.calls, ", ")
	k.calls = nil
	return out
}

func (k *keeper) failing(method string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = method
}

func withDrivers(t *testing.T, root, sockets string) *Service {
	t.Helper()
	s, err := Open(Options{Root: root, Events: event.New(), Log: func(err error) { t.Log(err.Error()) }, Drivers: &plugin.Finder{Sockets: sockets}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func want(t *testing.T, k *keeper, calls string) {
	t.Helper()
	if got := k.took(); got != calls {
		t.Errorf("the driver is asked for %q, not for %q", got, calls)
	}
}

// TestDriver follows a volume of another driver through its life, and through an engine that is started anew.
func TestDriver(t *testing.T) {
	ownMounts(t)
	sockets, root, ctx := t.TempDir(), t.TempDir(), t.Context()
	k := keep(t, sockets, "disks")
	s := withDrivers(t, root, sockets)
	v := create(t, s, volume.CreateRequest{Name: "data", Driver: "disks", DriverOpts: map[string]string{"size": "10G"}, Labels: map[string]string{"a": "b"}})
	if v.Driver != "disks" || v.Scope != "global" || v.Options["size"] != "10G" || v.Labels["a"] != "b" {
		t.Errorf("%+v", v)
	}
	want(t, k, "/Plugin.Activate, Create data, Capabilities")
	if v, err := s.Inspect(ctx, "data"); err != nil || v.Mountpoint != filepath.Join(k.dir, "data") || v.Status["disks"] != "3" {
		t.Errorf("%+v, %v", v, err)
	}
	want(t, k, "Get data")

	for _, id := range []string{"one", "two", "one"} {
		dir, fresh, err := s.Acquire(ctx, "data", id)
		if err != nil || fresh != (id == "one" && len(k.mount) == 1) {
			t.Fatalf("%s: fresh %t, %v", id, fresh, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want(t, k, "Mount data, Mount data")
	if _, err := os.Stat(filepath.Join(k.dir, "data/file")); err != nil {
		t.Error("what is written does not get to the driver's:", err)
	}
	if err := s.Remove(ctx, "data", true); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removed while it is used: %v", err)
	}
	s.Idle(ctx, "data", "one")
	want(t, k, "Unmount data")
	if _, err := os.Stat(filepath.Join(s.data("data"), "file")); err != nil {
		t.Error("the other one has lost it:", err)
	}

	// The engine is killed; two runs on, one does not.
	s = withDrivers(t, root, sockets)
	for id, runs := range map[string]bool{"one": false, "two": true} {
		if err := s.Keep(ctx, "data", id, runs); err != nil {
			t.Fatal(err)
		}
	}
	want(t, k, "")
	s.Idle(ctx, "data", "two")
	want(t, k, "/Plugin.Activate, Unmount data")
	if is, err := mounted(s.data("data")); is || err != nil {
		t.Errorf("mounted while nobody runs: %t, %v", is, err)
	}
	giveBack, err := s.Borrow(ctx, "data")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.data("data"), "file")); err != nil {
		t.Error("what is borrowed is not there:", err)
	}
	giveBack()
	want(t, k, "Mount data, Unmount data")
	for _, id := range []string{"one", "two"} {
		s.Release(ctx, "data", id)
	}
	want(t, k, "")
	if _, err := s.Prune(ctx, map[string]map[string]bool{"all": {"true": true}}); err != nil {
		t.Error(err)
	}
	want(t, k, "")
	k.failing("Remove")
	if err := s.Remove(ctx, "data", false); err == nil || !strings.Contains(err.Error(), "the disks are out of order") {
		t.Errorf("%v", err)
	}
	if got := names(t, s, nil); !slices.Equal(got, []string{"data"}) {
		t.Errorf("what could not be removed is not there: %v", got)
	}
	k.took()
	if err := s.Remove(ctx, "data", true); err != nil {
		t.Errorf("by force: %v", err)
	}
	want(t, k, "Remove data")
	if len(k.mount) != 0 {
		t.Errorf("left mounted: %v", k.mount)
	}
	if list, err := os.ReadDir(root); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}

// TestDriverHangs: one that answers nothing holds up neither a container's end for long, nor others' volumes.
func TestDriverHangs(t *testing.T) {
	ownMounts(t)
	sockets := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(sockets, "hangs.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := withDrivers(t, t.TempDir(), sockets)
	limited, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Create(limited, volume.CreateRequest{Name: "data", Driver: "hangs"})
		ended <- err
	}()
	if c, err := l.Accept(); err != nil { // it has been asked, and answers nothing
		t.Fatal(err)
	} else {
		defer c.Close()
	}
	create(t, s, volume.CreateRequest{Name: "other", Driver: "local"})
	cancel()
	if err := <-ended; !errdefs.IsUnavailable(err) {
		t.Errorf("%v", err)
	}
}

// TestDriverHasIt: volumes that a driver has are there without being made; those that it has lost are made again, by it or by another.
func TestDriverHasIt(t *testing.T) {
	ownMounts(t)
	sockets, ctx := t.TempDir(), t.Context()
	k := keep(t, sockets, "disks")
	s := withDrivers(t, t.TempDir(), sockets)
	if got := s.Drivers(ctx); !slices.Equal(got, []string{"local", "disks"}) {
		t.Errorf("drivers: %v", got)
	}
	k.vols["elsewhere"] = nil
	if err := os.Mkdir(filepath.Join(k.dir, "elsewhere"), 0o755); err != nil {
		t.Fatal(err)
	}
	for filter, is := range map[string]bool{"disks": true, "local": false} {
		if got := names(t, s, map[string]map[string]bool{"driver": {filter: true}}); slices.Contains(got, "elsewhere") != is {
			t.Errorf("driver=%s: %v", filter, got)
		}
	}
	if v, err := s.Inspect(ctx, "elsewhere"); err != nil || v.Driver != "disks" || v.Scope != "global" {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := s.Inspect(ctx, "nowhere"); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	if dir, _, err := s.Acquire(ctx, "elsewhere", "one"); err != nil || os.WriteFile(filepath.Join(dir, "x"), nil, 0o644) != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(k.dir, "elsewhere/x")); err != nil {
		t.Error("another volume was made of the same name:", err)
	}
	s.Release(ctx, "elsewhere", "one")

	if _, err := s.Create(ctx, volume.CreateRequest{Name: "elsewhere", Driver: "local"}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "must be unique") {
		t.Errorf("%v", err)
	}
	k.mu.Lock()
	delete(k.vols, "elsewhere")
	k.mu.Unlock()
	if v := create(t, s, volume.CreateRequest{Name: "elsewhere", Driver: "local"}); v.Driver != "local" {
		t.Errorf("%+v", v)
	}
	if _, err := s.Create(ctx, volume.CreateRequest{Name: "other", Driver: "disk"}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "there are the drivers local, disks") {
		t.Errorf("%v", err)
	}
	k.failing("Create")
	if _, err := s.Create(ctx, volume.CreateRequest{Name: "other", Driver: "disks"}); err == nil || !strings.Contains(err.Error(), "the disks are out of order") {
		t.Errorf("%v", err)
	}
	if got := names(t, s, nil); !slices.Equal(got, []string{"elsewhere"}) {
		t.Errorf("%v", got)
	}
}

// TestDriverFails: what a driver cannot mount is not there, and not left behind; one that went away and came again is found.
func TestDriverFails(t *testing.T) {
	ownMounts(t)
	sockets, ctx := t.TempDir(), t.Context()
	k := keep(t, sockets, "disks")
	s := withDrivers(t, t.TempDir(), sockets)
	create(t, s, volume.CreateRequest{Name: "data", Driver: "disks"})
	k.failing("Mount")
	if _, _, err := s.Acquire(ctx, "data", "one"); err == nil || !strings.Contains(err.Error(), "the disks are out of order") {
		t.Errorf("%v", err)
	}
	k.failing("")
	if err := os.RemoveAll(filepath.Join(k.dir, "data")); err != nil { // so that it says a place where nothing is
		t.Fatal(err)
	}
	if _, _, err := s.Acquire(ctx, "data", "one"); err == nil || len(k.mount) != 0 {
		t.Errorf("%v, mounted: %v", err, k.mount)
	}
	s.Release(ctx, "data", "one")

	if err := os.Remove(filepath.Join(sockets, "disks.sock")); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.drivers.await(soon, "disks"); !errors.Is(err, context.Canceled) || !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	again := keep(t, sockets, "disks")
	if _, _, err := s.Acquire(ctx, "data", "two"); err == nil || !strings.Contains(err.Error(), "no such volume") {
		t.Errorf("the new program does not have it: %v", err)
	}
	again.vols["data"] = nil
	if err := os.Mkdir(filepath.Join(again.dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Acquire(ctx, "data", "two"); err != nil {
		t.Error(err)
	}
	s.Release(ctx, "data", "two")
}
