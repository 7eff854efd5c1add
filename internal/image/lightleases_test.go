package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/event"
)

// blob puts content into a store, under the lease of ctx if there is one.
func blob(ctx context.Context, s *Service, text string) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	err := content.WriteBlob(in(ctx), s.content, d.Digest.String(), bytes.NewReader([]byte(text)), d)
	return d, err
}

func (s *Service) has(t *testing.T, d ocispec.Descriptor) bool {
	t.Helper()
	_, err := s.content.Info(in(t.Context()), d.Digest)
	if err != nil && !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

// written is how many transactions have written to the metadata.
func written(s *Service) int64 {
	stats := s.bolt.Stats()
	return stats.TxStats.GetWrite()
}

// TestLightLeases: what is here already is held without the disk; what is made under a lease is held by it there.
func TestLightLeases(t *testing.T) {
	s := open(t)
	ctx, done, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, err := blob(ctx, s, "first")
	if err != nil {
		t.Fatal(err)
	}
	before := written(s)
	again, end, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.content.Writer(again, content.WithRef("again"), content.WithDescriptor(first)); !errdefs.IsAlreadyExists(err) {
		t.Errorf("content that is here already: %v", err)
	}
	id, _ := leases.FromContext(again)
	if list, err := s.leases.ListResources(again, leases.Lease{ID: id}); err != nil || len(list) != 1 || list[0].ID != first.Digest.String() {
		t.Errorf("it holds %v: %v", list, err)
	}
	if list, err := s.leases.List(again, "id=="+id); err != nil || len(list) != 1 {
		t.Errorf("it is listed as %v: %v", list, err)
	}
	if now := written(s); now != before {
		t.Errorf("%d pages were written to hold what is here", now-before)
	}
	done()
	if err := s.collect(ctx); err != nil || !s.has(t, first) {
		t.Errorf("held in memory, and collected: %v", err)
	}
	second, err := blob(again, s, "second")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.leases.ListResources(again, leases.Lease{ID: id}); err != nil || len(list) != 2 {
		t.Errorf("it holds %v: %v", list, err)
	}
	if err := s.collect(ctx); err != nil || !s.has(t, first) || !s.has(t, second) {
		t.Errorf("held, and collected: %v", err)
	}
	end()
	if err := s.collect(t.Context()); err != nil || s.has(t, first) || s.has(t, second) {
		t.Errorf("held by nobody, and still here: %v", err)
	}
	if _, err := blob(again, s, "third"); err == nil {
		t.Error("made under a lease that has ended")
	}
}

// TestLightLeasesExpire: nobody needs to end them.
func TestLightLeasesExpire(t *testing.T) {
	s := open(t)
	ctx, done, err := s.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := blob(ctx, s, "one")
	if err != nil {
		t.Fatal(err)
	}
	old, err := s.leases.Create(in(t.Context()), leases.WithID("old"), leases.WithExpiration(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.leases.AddResource(in(t.Context()), old, leases.Resource{ID: d.Digest.String(), Type: "content"}); err != nil {
		t.Fatal(err)
	}
	done()
	if err := s.collect(t.Context()); err != nil || s.has(t, d) {
		t.Errorf("held by a lease that is over: %v", err)
	}
}

// TestWhatWasCutOffGoes: what an engine was making when it was killed is not taken up by the next one, but for downloads.
func TestWhatWasCutOffGoes(t *testing.T) {
	root := t.TempDir()
	start := func() *Service {
		s, err := Open(t.Context(), Options{Root: root + "/root", Mounts: root + "/layers", Oar: "/proc/self/exe", Events: event.New()})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := start()
	for ref, why := range map[string]string{"load": "", "download": "pull a:1"} {
		ctx, _, err := s.leaseFor(t.Context(), why)
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.content.Writer(ctx, content.WithRef(ref))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	for range 2 {
		if err := errors.Join(s.Unmount(), s.Close()); err != nil {
			t.Fatal(err)
		}
		s = start()
	}
	defer func() { _ = errors.Join(s.Unmount(), s.Close()) }()
	list, err := s.content.ListStatuses(in(t.Context()))
	if err != nil || len(list) != 1 || list[0].Ref != "download" {
		t.Errorf("under way are %+v: %v", list, err)
	}
	if dirs, err := os.ReadDir(root + "/root/content/ingest"); err != nil || len(dirs) != 1 {
		t.Errorf("directories of half content: %v %v", dirs, err)
	}
}

// TestWhatIsHeldStays: who holds something while garbage is collected either has it until he lets go, or sees that it is not here.
func TestWhatIsHeldStays(t *testing.T) {
	s := open(t)
	var all sync.WaitGroup
	stop := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := s.collect(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for j := range 60 {
				if err := holdOne(t, s, fmt.Sprint("text ", j%4)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	all.Wait()
}

func holdOne(t *testing.T, s *Service, text string) error {
	ctx, done, err := s.lease(t.Context())
	if err != nil {
		return err
	}
	defer done()
	d, err := blob(ctx, s, text)
	if err != nil && !errdefs.IsAlreadyExists(err) && !errdefs.IsUnavailable(err) { // another makes it just now
		return err
	}
	if errdefs.IsUnavailable(err) {
		return nil
	}
	for range 3 {
		if !s.has(t, d) {
			return errors.New("collected while it was held")
		}
	}
	return nil
}
