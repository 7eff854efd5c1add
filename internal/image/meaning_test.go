package image

import (
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	fslayer "wherry.dev/wherry/internal/layer"
)

// TestMeanings: what a name means here and at its registry, and whether it is known there, until it points elsewhere.
func TestMeanings(t *testing.T) {
	a, b := open(t), open(t)
	name := realRegistry(t, nil) + "/team/app:1"
	ask := func(s *Service, there bool) Meaning {
		t.Helper()
		m, err := MeaningOf(t.Context(), s, name, MeaningOptions{Registry: there, Platforms: true})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := imported(t, a, name, file{name: "a", content: "1"})
	if m := ask(a, false); m.Digest != first.ID || m.Pulled != nil || m.Pushed != nil || len(m.Platforms) != 1 {
		t.Errorf("made here: %+v", m)
	}
	if _, err := MeaningOf(t.Context(), a, name, MeaningOptions{Registry: true}); !errdefs.IsNotFound(err) {
		t.Errorf("not there yet: %v", err)
	}
	if err := a.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := ask(a, false); m.Pulled != nil || m.Pushed == nil {
		t.Errorf("pushed: %+v", m)
	}
	if err := b.Pull(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if m := ask(b, false); m.Digest != first.ID || m.Pulled == nil || m.Pushed != nil {
		t.Errorf("pulled: %+v", m)
	}
	second := imported(t, a, name, file{name: "a", content: "2"})
	if m := ask(a, false); m.Digest != second.ID || m.Pushed != nil {
		t.Errorf("made anew, and not pushed: %+v", m)
	}
	if m := ask(a, true); m.Digest != first.ID || m.Platforms[platformOf(t, a, name)] != first.Manifest.Digest {
		t.Errorf("the registry still has the first: %+v", m)
	}

	// A tag that is given to what was pulled by its digest is known there too; one in another repository is not.
	repo := strings.TrimSuffix(name, ":1")
	if err := b.Pull(t.Context(), repo+"@"+first.ID.String(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	for to, known := range map[string]bool{repo + ":2": true, "mine:1": false} {
		if err := b.Tag(t.Context(), repo+"@"+first.ID.String(), to); err != nil {
			t.Fatal(err)
		}
		if m, err := MeaningOf(t.Context(), b, to, MeaningOptions{}); err != nil || (m.Pulled != nil) != known {
			t.Errorf("%s: %+v %v", to, m, err)
		}
	}
	if _, err := b.Remove(t.Context(), name, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := MeaningOf(t.Context(), b, name, MeaningOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
}

func platformOf(t *testing.T, s *Service, name string) string {
	t.Helper()
	m, err := MeaningOf(t.Context(), s, name, MeaningOptions{Platforms: true})
	if err != nil || len(m.Platforms) != 1 {
		t.Fatal(m, err)
	}
	for p := range m.Platforms {
		return p
	}
	return ""
}

// TestPulledMoveIsSaid: a pull that moves a tag says from where.
func TestPulledMoveIsSaid(t *testing.T) {
	a, b := open(t), open(t)
	name := realRegistry(t, nil) + "/team/app:1"
	var ids []string
	var said []string
	for _, text := range []string{"1", "2"} {
		ids = append(ids, imported(t, a, name, file{name: "a", content: text}).ID.String())
		if err := a.Push(t.Context(), name, TransferOptions{}); err != nil {
			t.Fatal(err)
		}
		said = nil
		if err := b.Pull(t.Context(), name, TransferOptions{Progress: statuses(&said)}); err != nil {
			t.Fatal(err)
		}
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, name+" was "+ids[0]+"\n") || !strings.Contains(all, "Digest: "+ids[1]) {
		t.Errorf("%s", all)
	}
}

// TestStacks: layers are read where they are, and what comes from a registry is not kept.
func TestStacks(t *testing.T) {
	a, b := open(t), open(t)
	name := realRegistry(t, nil) + "/team/app:1"
	img := imported(t, a, name, file{name: "a", content: "1"})
	if err := a.Push(t.Context(), name, TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	read := func(s *Service, there bool) *Stack {
		t.Helper()
		k, err := StackOf(t.Context(), s, name, StackOptions{Registry: there})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		r, err := k.Open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		sums, err := fslayer.Unpack(t.Context(), r, nothingOf{})
		if err != nil || k.ID != img.ID || len(k.Diffs) != 1 || sums.Diff != k.Diffs[0] {
			t.Errorf("%+v %+v %v", k, sums, err)
		}
		return k
	}
	if k := read(a, false); len(k.Lower) != 1 {
		t.Errorf("here: %+v", k)
	}
	k := read(b, true)
	if k.Lower != nil {
		t.Errorf("at its registry: %+v", k)
	}
	if _, err := b.content.Info(in(t.Context()), k.layers[0].Digest); !errdefs.IsNotFound(err) {
		t.Errorf("the layer was kept: %v", err)
	}
	if _, err := StackOf(t.Context(), b, name, StackOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("nothing of it is here: %v", err)
	}

	// One whose layer is only kept unpacked reads it where the other image comes from.
	here, err := StackOf(t.Context(), a, name, StackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if err := a.content.Delete(in(t.Context()), here.layers[0].Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Open(t.Context(), 0); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "not kept as it came") {
		t.Errorf("nowhere: %v", err)
	}
	there, err := StackOf(t.Context(), a, name, StackOptions{Registry: true})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	here.Borrow(there)
	r, err := here.Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if sums, err := fslayer.Unpack(t.Context(), r, nothingOf{}); err != nil || sums.Diff != here.Diffs[0] {
		t.Errorf("borrowed: %+v %v", sums, err)
	}
}

type nothingOf struct{}

func (nothingOf) Add(*fslayer.Entry, io.Reader) error { return nil }
