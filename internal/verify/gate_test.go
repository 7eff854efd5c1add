package verify

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/evidence"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/trust"
)

func wantRefusal(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errdefs.IsPermissionDenied(err) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q lacks %q, or is more than a line", err, w)
		}
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPullAndRunNeedTheSignature(t *testing.T) {
	reg, k := newServer(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app"
	s := governed(t, signedBy(reg.host+"/team", byKey), k.file(t, "key.pub"))

	err := s.pull(name + ":1")
	wantRefusal(t, err, "image "+name+":1 is refused by the rule for "+reg.host+"/team in ", "policy.toml:3: ", "key.pub", "there is no signature", "have it signed, or change the rule")
	if list, _ := s.List(t.Context(), image.ListOptions{All: true}); len(list) != 0 {
		t.Errorf("a refused image is here: %+v", list)
	}
	for _, r := range reg.requests() {
		if strings.HasPrefix(r, "GET") && strings.Contains(r, "/blobs/") {
			t.Errorf("before it was refused, it was asked for %s", r)
		}
	}

	reg.attachClassic("team/app", d.Digest, classic(t, newKey(t), payloadFor(name, d.Digest)), classic(t, k, payloadFor(reg.host+"/other/app", d.Digest)))
	wantRefusal(t, s.pull(name+":1"), "signed for another name: "+reg.host+"/other/app")
	reg.attachClassic("team/app", d.Digest, classic(t, k, payloadFor(name, d.Digest)))
	ok(t, s.pull(name+":1"))
	ok(t, s.permit(name+":1"))
	ok(t, s.permit(d.Digest.String())) // by its id it is the same image, from the same place
	in, err := s.Inspect(t.Context(), name+":1", nil)
	if err != nil || in.Identity == nil || len(in.Identity.Signature) != 1 || in.Identity.Signature[0].Name != "signed by key.pub" || in.Identity.Pull[0].Repository != name {
		t.Errorf("inspect: %+v %v", in.Identity, err)
	}

	// From now on nobody is asked, and the signature at the registry may go: what was signed stays signed.
	reg.requests()
	ok(t, os.Rename(filepath.Join(s.dir, "root", "empty"), filepath.Join(s.dir, "was-empty")))
	ok(t, s.permit(name+":1"))
	if r := reg.requests(); len(r) != 0 {
		t.Errorf("a run asked the registry: %q", r)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "root", "empty")); err == nil {
		t.Error("a run of an image that has passed starts the helper")
	}

	// A name of the user's making is the same image.
	ok(t, s.Tag(t.Context(), name+":1", "mine:1"))
	ok(t, s.permit("mine:1"))
}

func TestPolicyIsReadAgain(t *testing.T) {
	reg, k := newServer(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app:1"
	s := governed(t, `default = "accept"`)
	ok(t, s.pull(name))
	ok(t, s.permit(name))

	// It was pulled before there was a rule: its signature is looked for when it runs, and then kept.
	s.policy(signedBy(reg.host, byKey), k.file(t, "key.pub"))
	wantRefusal(t, s.permit(name), "there is no signature")
	reg.down(true)
	err := s.permit(name)
	wantRefusal(t, err, "whether it is could not be found out: ")
	var refusal *trust.Refusal
	if strings.Contains(err.Error(), "change the rule") || !errors.As(err, &refusal) || refusal.Err == nil {
		t.Errorf("a registry that is down: %v", err)
	}
	reg.down(false)
	reg.attachClassic("team/app", d.Digest, classic(t, k, payloadFor(reg.host+"/team/app", d.Digest)))
	ok(t, s.permit(name))

	// Other keys: what was found before does not count, and what is kept with the image is judged anew.
	other := newKey(t)
	s.policy(signedBy(reg.host, byKey), other.file(t, "key.pub"))
	wantRefusal(t, s.permit(name), "no signature is by these keys")
	reg.requests()
	s.policy(signedBy(reg.host, "format = \"sigstore\"\nkeys = [\"key.pub\", \"old.pub\"]"), k.file(t, "old.pub"))
	ok(t, s.permit(name))
	if r := reg.requests(); len(r) != 0 {
		t.Errorf("signatures lie with the image, and the registry was asked: %q", r)
	}
	for _, text := range []string{"", "default = 1", "default = \"accept\"\nrul = 1", "default = \"accept\"\n[[rule]]\nscope = \"" + reg.host + "\"\naction = \"acept\""} {
		s.policy(text)
		wantRefusal(t, s.permit(name), "the policy cannot be followed", "policy.toml")
		wantRefusal(t, s.pull(name), "the policy cannot be followed", "policy.toml")
	}
	ok(t, os.Remove(filepath.Join(s.dir, "policy.toml"))) // it was named: that it is gone is no reason to accept all
	wantRefusal(t, s.permit(name), "policy.toml")
	s.policy(`default = "reject"`)
	wantRefusal(t, s.permit(name), "is refused by the default in ", `policy.toml:1: it says "reject"`)
}

func TestKeptSignaturesServeWithoutRegistry(t *testing.T) {
	reg, k := newServer(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app"
	reg.attach("team/app", d, bundled(t, k, statement(d.Digest, "", signPredicate)))
	s := governed(t, signedBy(reg.host, byKey), k.file(t, "key.pub"))
	ok(t, s.pull(name+":1"))
	reg.do("DELETE", "http://"+reg.host+"/v2/team/app/manifests/"+d.Digest.String(), "", nil)
	s.policy(signedBy(reg.host, byKey+"\n# changed\nclaims = \""+name+"\""), k.file(t, "key.pub"))
	wantRefusal(t, s.permit(name+":1"), "signed for no name")
	s.policy(strings.Replace(signedBy(reg.host, byKey), `"reject"`, `"accept"`, 1))
	ok(t, s.permit(name+":1"))
}

func TestThresholds(t *testing.T) {
	reg, a, b := newServer(t), newKey(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app"
	ca := newNotaryCA(t, time.Now().Add(time.Hour))
	all := "default = \"accept\"\n[[rule]]\nscope = \"" + reg.host + "\"\naction = \"signed\"\nneed = NEED\n[[rule.signer]]\nformat = \"sigstore\"\nkeys = [\"a.pub\"]\n" +
		"[[rule.signer]]\nformat = \"sigstore\"\nkeys = [\"b.pub\"]\n[[rule.signer]]\nformat = \"notation\"\ncertificates = [\"wharf.pem\"]\n"
	files := []evidence.File{a.file(t, "a.pub"), b.file(t, "b.pub"), ca.authority}
	s := governed(t, strings.Replace(all, "NEED", `"all"`, 1), files...)
	reg.attachClassic("team/app", d.Digest, classic(t, a, payloadFor(name, d.Digest)), classic(t, a, payloadFor(name, d.Digest)))
	wantRefusal(t, s.pull(name+":1"), "by 3 of these", "only 1 of 3 have signed it (a.pub)")
	reg.attach("team/app", d, ca.envelope(t, envelopeTypes[0], d, time.Now().Add(-time.Minute), time.Time{}))
	s.policy(strings.Replace(all, "NEED", "2", 1))
	ok(t, s.pull(name+":1"))
	s.policy(strings.Replace(all, "NEED", `"all"`, 1))
	wantRefusal(t, s.permit(name+":1"), "only 2 of 3")
	reg.attachClassic("team/app", d.Digest, classic(t, a, payloadFor(name, d.Digest)), classic(t, b, payloadFor(name, d.Digest)))
	ok(t, s.permit(name+":1"))
}

// An index's signature is one of all images that it names. That of one image is none of its index's others, nor of the next to come.
func TestIndexes(t *testing.T) {
	reg, k := newServer(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	d2 := publish(t, reg, "team/app:2")
	name := reg.host + "/team/app"
	host := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	index := func(tag string, of ocispec.Descriptor) ocispec.Descriptor {
		of.Platform = &host
		i := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{of}}
		i.SchemaVersion = 2
		return reg.manifest("team/app", tag, ocispec.MediaTypeImageIndex, i)
	}
	signed, partly := index("signed", d), index("partly", d2)
	reg.attachClassic("team/app", signed.Digest, classic(t, k, payloadFor(name, signed.Digest)))
	s := governed(t, signedBy(reg.host, byKey), k.file(t, "key.pub"))
	ok(t, s.pull(name+":signed"))
	ok(t, s.permit(name+":signed"))
	wantRefusal(t, s.pull(name+":partly"), "there is no signature")
	wantRefusal(t, s.pull(name+"@"+d.Digest.String()), "there is no signature") // alone, nothing leads from it to its index
	reg.attachClassic("team/app", d2.Digest, classic(t, k, payloadFor(name, d2.Digest)))
	ok(t, s.pull(name+":partly"))
	reg.attachClassic("team/app", partly.Digest, classic(t, k, payloadFor(name, signed.Digest))) // a replay is none
	fresh := governed(t, signedBy(reg.host, byKey), k.file(t, "key.pub"))
	ok(t, fresh.pull(name+":partly"))
}

func TestImagesMadeHere(t *testing.T) {
	reg := newServer(t)
	publish(t, reg, "team/app:1")
	name := reg.host + "/team/app:1"
	s := governed(t, "default = \"accept\"")
	ok(t, s.pull(name))
	archive := filepath.Join(s.dir, "a.tar")
	ok(t, s.Save(t.Context(), []string{name}, image.SaveOptions{}, mustCreate(t, archive)))

	free := governed(t, "default = \"reject\"")
	f, err := os.Open(archive)
	ok(t, err)
	defer f.Close()
	ok(t, free.Load(t.Context(), f, image.TransferOptions{}))
	ok(t, free.permit(name))
	free.policy("default = \"reject\"\nlocal = \"reject\"")
	wantRefusal(t, free.permit(name), "the rule for images made on this machine in ", "policy.toml:2")
	free.policy("default = \"accept\"\nlocal = \"as-named\"\n[[rule]]\nscope = \"" + reg.host + "\"\naction = \"reject\"")
	wantRefusal(t, free.permit(name), "the rule for "+reg.host)
}

func mustCreate(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	ok(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestDryRun(t *testing.T) {
	reg, k := newServer(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app:1"
	s := newSite(t)
	trial := governed(t, signedBy(reg.host, byKey), k.file(t, "key.pub"))
	try := func(want bool) image.Judgement {
		t.Helper()
		j, err := image.JudgeByPolicy(t.Context(), s.Service, name, image.JudgeOptions{Policy: filepath.Join(trial.dir, "policy.toml")})
		ok(t, err)
		if j.Accepted != want || j.Image != name || j.Digest != d.Digest || j.Action != "signed" {
			t.Errorf("%+v", j)
		}
		return j
	}
	since := time.Now()
	if j := try(false); !strings.Contains(j.Why, "there is no signature") {
		t.Errorf("%+v", j)
	}
	reg.attachClassic("team/app", d.Digest, classic(t, k, payloadFor(reg.host+"/team/app", d.Digest)))
	if j := try(true); len(j.SignedBy) != 1 || j.SignedBy[0] != "key.pub" {
		t.Errorf("%+v", j)
	}
	ok(t, s.pull(name))
	try(true)
	ok(t, s.events.Subscribe(t.Context(), since, time.Now(), func(e events.Message) error {
		if e.Action == "verify" || e.Action == "refuse" {
			t.Errorf("a trial is told as an event: %+v", e)
		}
		return nil
	}))
	if in, err := s.Inspect(t.Context(), name, nil); err != nil || in.Identity == nil || in.Identity.Signature != nil {
		t.Errorf("a trial is kept: %+v %v", in.Identity, err)
	}
}
