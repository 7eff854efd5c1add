package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source/containerimage"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/image"
)

// job is a build that is over when end is called.
type job struct {
	solver.JobContext
	over []func() error
}

func (j *job) Session() session.Group { return nil }

func (j *job) Cleanup(fn func() error) error {
	j.over = append(j.over, fn)
	return nil
}

func (j *job) end(t *testing.T) {
	for _, fn := range j.over {
		if err := fn(); err != nil {
			t.Error(err)
		}
	}
}

// TestBasesStayForTheirBuilds: an image that is nowhere but here loses its name while a build is between its configuration and its files.
func TestBasesStayForTheirBuilds(t *testing.T) {
	dir := t.TempDir()
	s, err := image.Open(t.Context(), image.Options{Root: filepath.Join(dir, "root"), Mounts: filepath.Join(dir, "layers"), Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Unmount(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "f", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), &layer, image.ImportOptions{Ref: "base.invalid/only-here:1"}); err != nil {
		t.Fatal(err)
	}
	src := &imageSource{images: s}
	find := func(ref string, j *job) (string, error) {
		id, err := containerimage.NewImageIdentifier(ref)
		if err != nil {
			t.Fatal(err)
		}
		a := asked{id: id}
		if j != nil {
			a.job = j
		}
		d, err := src.find(t.Context(), a)
		return d.Digest.String(), err
	}
	first, second := &job{}, &job{}
	found, err := find("base.invalid/only-here:1", first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "base.invalid/only-here:1", image.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	pinned := "base.invalid/only-here:1@" + found
	for _, j := range []*job{first, second, nil} {
		if again, err := find(pinned, j); err != nil || again != found {
			t.Errorf("%s: %v", again, err)
		}
	}
	first.end(t)
	if _, err := find(pinned, nil); err != nil {
		t.Errorf("the first build is over, the second one is not: %v", err)
	}
	if _, err := find("base.invalid/another:1@"+found, nil); err == nil {
		t.Error("it is found in a repository that it is not in")
	}
	second.end(t)
	if _, err := find(pinned, nil); err == nil || len(src.bases.found) != 0 {
		t.Errorf("it stays when all builds are over: %v, %v", err, src.bases.found)
	}
}
