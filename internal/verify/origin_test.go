package verify

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/image"
)

const free = `default = "accept"`

// refusing is a policy under which only a scope is refused.
func refusing(scope string) string {
	return free + "\n[[rule]]\nscope = \"" + scope + "\"\naction = \"reject\""
}

// told counts events of images.
func (s *site) told(action events.Action) (n int) {
	s.t.Helper()
	ok(s.t, s.events.Subscribe(s.t.Context(), time.Now().Add(-time.Hour), time.Now(), func(e events.Message) error {
		if e.Action == action {
			n++
		}
		return nil
	}))
	return n
}

// Whatever is made of an image's manifest here, and however it is named: it is judged by where it came from.
func TestProvenanceStays(t *testing.T) {
	reg := newServer(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app:1"
	s := governed(t, free)
	ok(t, s.pull(name))
	lists := image.Lists{S: s.Service}
	ok(t, lists.Create(t.Context(), "mine:1", false))
	_, err := lists.Add(t.Context(), "mine:1", image.Listed{Image: name})
	ok(t, err)
	ok(t, s.permit("mine:1"))
	list, err := s.Resolve(t.Context(), "mine:1", nil)
	ok(t, err)
	refused := func(s *site) {
		t.Helper()
		for _, as := range []string{"mine:1", list.ID.String(), d.Digest.String(), d.Digest.Encoded()[:12], name} {
			wantRefusal(t, s.permit(as), "the rule for "+reg.host)
		}
	}
	s.policy(refusing(reg.host))
	refused(s)

	for _, of := range []string{"mine:1", name} { // an archive of what a registry has given is no other image
		archive := filepath.Join(s.dir, "a.tar")
		ok(t, s.Save(t.Context(), []string{of}, image.SaveOptions{}, mustCreate(t, archive)))
		f, err := os.Open(archive)
		ok(t, err)
		wantRefusal(t, s.Load(t.Context(), f, image.TransferOptions{}), "the rule for "+reg.host)
		f.Close()
		refused(s)
	}

	ok(t, s.Close())
	ok(t, os.Remove(filepath.Join(s.dir, "root", "images.db")))
	refused(s.open())
}

// A tag beside a digest says nothing: what is judged is the digest.
func TestTagBesideDigest(t *testing.T) {
	reg := newServer(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app"
	at := name + "@" + d.Digest.String()
	s := governed(t, "default = \"reject\"\n[[rule]]\nscope = \""+name+":1\"\naction = \"accept\"")
	for _, as := range []string{at, name + ":1@" + d.Digest.String()} {
		wantRefusal(t, s.pull(as), "the default")
		ok(t, s.pull(name+":1"))
		ok(t, s.permit(name+":1"))
		wantRefusal(t, s.permit(as), "the default")
		_, err := s.Remove(t.Context(), name+":1", image.RemoveOptions{})
		ok(t, err)
	}
}

// An image that two registries gave is as good as the better of its names, and each is asked for its own signatures. A refusal is one event.
func TestEachNameAsksItsOwnRegistry(t *testing.T) {
	a, b := newServer(t), newServer(t)
	d := publish(t, a, "team/app:1")
	ok(t, newSite(t).copy(a.host+"/team/app:1", b.host+"/team/app:1"))
	for _, signedAt := range []*server{a, b} {
		k := newKey(t) // the other has no signature by this one
		s := governed(t, free, k.file(t, "key.pub"))
		ok(t, s.pull(a.host+"/team/app:1"))
		ok(t, s.pull(b.host+"/team/app:1"))
		rule := strings.Replace(signedBy("HOST", byKey), "default = \"reject\"", "", 1)
		s.policy("default = \"reject\"" + strings.ReplaceAll(rule, "HOST", a.host) + strings.ReplaceAll(rule, "HOST", b.host))
		if signedAt == a {
			wantRefusal(t, s.permit(d.Digest.String()), "there is no signature")
			if n := s.told("refuse"); n != 1 {
				t.Errorf("a refusal is %d events", n)
			}
		}
		signedAt.attachClassic("team/app", d.Digest, classic(t, k, payloadFor(signedAt.host+"/team/app", d.Digest)))
		ok(t, s.permit(d.Digest.String()))
	}
}

// Copies, artifacts and lists bring what a registry has as pulls do.
func TestOtherWaysIn(t *testing.T) {
	reg := newServer(t)
	publish(t, reg, "team/app:1")
	name := reg.host + "/team/app:1"
	s := governed(t, refusing(reg.host+"/team"))
	m := image.Manifests{S: s.Service}
	wantRefusal(t, s.copy(name, reg.host+"/other:1"), "the rule for "+reg.host+"/team")
	var out bytes.Buffer
	wantRefusal(t, m.CopyOut(t.Context(), image.CopyOptions{From: image.Place{Name: name}}, &out), "the rule for")
	if out.Len() > 0 {
		t.Errorf("%d bytes of a refused image were written", out.Len())
	}
	lists := image.Lists{S: s.Service}
	ok(t, lists.Create(t.Context(), "mine:1", false))
	_, err := lists.Add(t.Context(), "mine:1", image.Listed{Image: name})
	wantRefusal(t, err, "the rule for")

	// What was listed while it was accepted is not run later.
	s.policy(free)
	_, err = lists.Add(t.Context(), "mine:1", image.Listed{Image: name})
	ok(t, err)
	ok(t, s.pull(name))
	s.policy(refusing(reg.host + "/team"))
	wantRefusal(t, s.permit("mine:1"), "the rule for")

	artifacts := image.Artifacts{S: s.Service}
	files := tarOf(t, "notes", "text")
	_, err = m.Attach(t.Context(), image.Place{Name: name}, image.AttachOptions{}, bytes.NewReader(files))
	ok(t, err)
	_, err = artifacts.Add(t.Context(), bytes.NewReader(files), image.AddOptions{Name: reg.host + "/team/notes:1"})
	ok(t, err)
	ok(t, artifacts.Push(t.Context(), image.Place{Name: reg.host + "/team/notes:1"}, image.TransferOptions{}))
	other := governed(t, refusing(reg.host+"/team"))
	pull := func() error {
		_, err := image.Artifacts{S: other.Service}.Pull(t.Context(), image.Place{Name: reg.host + "/team/notes:1"}, image.TransferOptions{})
		return err
	}
	wantRefusal(t, pull(), "the rule for")
	other.policy(free)
	ok(t, pull())
	other.policy(refusing(reg.host + "/team"))
	for _, as := range []string{reg.host + "/team/notes:1", notesID(t, other)} {
		img, err := image.Mountable(t.Context(), other.Service, as)
		ok(t, err)
		wantRefusal(t, image.Permit(t.Context(), other.Service, img), "the rule for "+reg.host+"/team")
	}
}

func notesID(t *testing.T, s *site) string {
	t.Helper()
	list, err := image.Artifacts{S: s.Service}.List(t.Context())
	ok(t, err)
	if len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	return list[0].Digest.String()
}

func tarOf(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	ok(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(1, 0)}))
	_, err := w.Write([]byte(text))
	ok(t, err)
	ok(t, w.Close())
	return b.Bytes()
}

// Of all platforms, none's content comes before the policy has let each pass.
func TestAllPlatformsAreJudgedFirst(t *testing.T) {
	reg, k := newServer(t), newKey(t)
	name := reg.host + "/team/app"
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	x.SchemaVersion = 2
	var parts []ocispec.Descriptor
	for i, arch := range []string{runtime.GOARCH, "s390x"} {
		d := publish(t, reg, "team/app:"+string(rune('1'+i)))
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		parts = append(parts, d)
	}
	attests := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: reg.blob("team/app", ocispec.MediaTypeImageConfig, []byte(`{"a":1}`)),
		Layers: []ocispec.Descriptor{reg.blob("team/app", "application/vnd.in-toto+json", []byte("{}"))}}
	attests.SchemaVersion = 2
	note := reg.manifest("team/app", "", ocispec.MediaTypeImageManifest, attests)
	note.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": parts[0].Digest.String()}
	x.Manifests = append(parts, note)
	reg.manifest("team/app", "all", ocispec.MediaTypeImageIndex, x)
	reg.attachClassic("team/app", parts[0].Digest, classic(t, k, payloadFor(name, parts[0].Digest))) // and not the other
	s := governed(t, signedBy(reg.host, byKey), k.file(t, "key.pub"))
	reg.requests()
	wantRefusal(t, s.Pull(t.Context(), name+":all", image.TransferOptions{AllPlatforms: true}), "there is no signature")
	payloads := 0
	for _, r := range reg.requests() {
		if strings.HasPrefix(r, "GET") && strings.Contains(r, "/blobs/") {
			payloads++
		}
	}
	if payloads != 1 { // the signature's
		t.Errorf("%d blobs were fetched before it was refused", payloads)
	}
	s.policy(free)
	if err := s.Pull(t.Context(), name+":all", image.TransferOptions{AllPlatforms: true}); err != nil && !strings.Contains(err.Error(), "s390x") {
		t.Error(err) // the second is an image of this machine in truth
	}
}
