package verify

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/evidence"
	"wherry.dev/wherry/internal/policy"
	"wherry.dev/wherry/internal/trust"
)

// Whoever can write into a repository can add signatures, and hundreds that they add do not hide the good ones. How many are looked at has an end.
func TestManySignatures(t *testing.T) {
	reg, k, other := newServer(t), newKey(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app"
	body := payloadFor(name, d.Digest)
	list := make([]evidence.Signature, 300)
	for i := range list {
		junk := bytes.Repeat([]byte{7}, 70)
		list[i] = evidence.Signature{Kind: evidence.Simple, Blob: body, Signature: base64.StdEncoding.EncodeToString(junk)}
	}
	both := strings.Replace(signedBy(reg.host, byKey), "action = \"signed\"", "action = \"signed\"\nneed = \"all\"", 1) + "[[rule.signer]]\nformat = \"sigstore\"\nkeys = [\"other.pub\"]\n"
	s := governed(t, both, k.file(t, "key.pub"), other.file(t, "other.pub"))
	list[150] = classic(t, k, body)
	reg.attachClassic("team/app", d.Digest, list...)
	wantRefusal(t, s.pull(name+":1"), "only 1 of 2")
	list[0] = classic(t, other, body) // the oldest, long after the first
	reg.attachClassic("team/app", d.Digest, list...)
	reg.requests()
	ok(t, s.pull(name+":1"))
	n := 0
	for _, r := range reg.requests() {
		if strings.HasPrefix(r, "GET") && strings.Contains(r, "/blobs/") {
			n++
		}
	}
	if n > 300/evidence.MaxSignatures+4 {
		t.Errorf("one payload was fetched %d times", n)
	}
	s.policy(both + "# what is kept with the image suffices")
	reg.down(true)
	ok(t, s.permit(name+":1"))
	reg.down(false)

	list = append(list, make([]evidence.Signature, evidence.MaxTried)...)
	for i := 300; i < len(list); i++ {
		list[i] = evidence.Signature{Kind: evidence.Simple, Blob: body, Signature: "AAAA"}
	}
	reg.attachClassic("team/app", d.Digest, list...)
	wantRefusal(t, governed(t, both, k.file(t, "key.pub"), other.file(t, "other.pub")).pull(name+":1"), "no signature")
}

func TestSpoiltSignatures(t *testing.T) {
	reg, k := newServer(t), newKey(t)
	d := publish(t, reg, "team/app:1")
	name := reg.host + "/team/app"
	good := bundled(t, k, statement(d.Digest, "", signPredicate))
	huge := good
	huge.Blob = append(bytes.Repeat([]byte(" "), evidence.MaxBlob), good.Blob...)
	bomb := good
	bomb.Blob = []byte(strings.Repeat(`{"dsseEnvelope":`, 60_000))
	cose := evidence.Signature{Kind: evidence.Notation, Blob: append([]byte{0xd2, 0x84, 0x5b}, bytes.Repeat([]byte{0xff}, 8)...), MediaType: envelopeTypes[1]}
	s := governed(t, signedBy(reg.host, byKey), k.file(t, "key.pub"))
	reg.attach("team/app", d, huge)
	wantRefusal(t, s.pull(name+":1"), "there is no signature") // too large to be one
	reg.attach("team/app", d, huge, bomb, cose)
	wantRefusal(t, s.pull(name+":1"), "a signature is malformed") // of what came nearest
	reg.attach("team/app", d, good, huge, bomb, cose)
	ok(t, s.pull(name+":1"))

	// A referrer's manifest that is about another image, and a payload that is not what its digest says.
	e := publish(t, reg, "team/app:2")
	reg.attach("team/app", d, good)
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	reg.manifest("team/app", strings.Replace(e.Digest.String(), ":", "-", 1), ocispec.MediaTypeImageIndex, index)
	wantRefusal(t, s.pull(name+":2"), "there is no signature")
	reg.attach("team/app", e, bundled(t, k, statement(d.Digest, "", signPredicate)))
	wantRefusal(t, s.pull(name+":2"), "")
}

// The helper has nothing: a root without files, no rights, no network, few system calls, and limits.
func TestConfinement(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root, as the engine has it")
	}
	path, err := helper()
	ok(t, err)
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Dir, cmd.Env = t.TempDir(), []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID}
	in, err := cmd.StdinPipe()
	ok(t, err)
	out := &bytes.Buffer{}
	cmd.Stdout = out
	ok(t, cmd.Start())
	proc := "/proc/" + strconv.Itoa(cmd.Process.Pid)
	status := func(key string) string {
		b, _ := os.ReadFile(proc + "/status")
		for line := range strings.Lines(string(b)) {
			if rest, found := strings.CutPrefix(line, key+":"); found {
				return strings.TrimSpace(rest)
			}
		}
		return ""
	}
	for limit := time.Now().Add(time.Minute); status("Seccomp") != "2"; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it never confines itself")
		}
	}
	for key, want := range map[string]string{"Uid": "65534\t65534\t65534\t65534", "Gid": "65534\t65534\t65534\t65534", "Groups": "", "NoNewPrivs": "1",
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000"} {
		if got := status(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if files, err := os.ReadDir(proc + "/root"); err != nil || len(files) != 0 {
		t.Errorf("its root has %d files: %v", len(files), err)
	}
	if dev, err := os.ReadFile(proc + "/net/dev"); err != nil || strings.Count(string(dev), ":") != 1 {
		t.Errorf("its network has more than a loopback that is down: %s %v", dev, err)
	}
	if b, err := os.ReadFile(proc + "/limits"); err != nil || !strings.Contains(string(b), "Max cpu time              20                   20") {
		t.Errorf("limits: %s %v", b, err)
	}
	_, err = io.WriteString(in, `{"Name":"x"}`)
	ok(t, err)
	in.Close()
	if err := cmd.Wait(); err != nil || out.String() != "{\"Findings\":[]}\n" {
		t.Errorf("%q %v", out, err)
	}
}

// So it is started: without environment, in an empty directory, in namespaces of its own of which that for networks has nothing in it.
func TestHelperIsStartedAlone(t *testing.T) {
	dir := t.TempDir()
	path, seen := dir+"/helper", dir+"/seen"
	ok(t, os.WriteFile(path, []byte(`#!/bin/sh
{ for n in net ipc uts pid; do readlink /proc/$$/ns/$n || readlink /proc/self/ns/$n; done; tail -n +3 /proc/self/net/dev; ls -A; pwd; } >`+seen+` 2>&1
tr '\0' '\n' </proc/self/environ >`+seen+`.env
echo '{"Findings":[{"OK":true}]}'
`), 0o755))
	q := evidence.Request{Name: here, Images: []evidence.Image{{Digest: digest.FromString("x"), Signatures: []evidence.Signature{{Kind: evidence.Simple}}}}}
	rule := &policy.Rule{Action: policy.Signed, Need: 1, Signers: []evidence.Signer{{Format: evidence.FormatSigstore}}}
	out, err := trust.New(trust.Options{Helper: path, Empty: dir + "/empty"}).Ask(t.Context(), rule, q)
	if err != nil || !out.OK {
		t.Fatalf("%+v %v", out, err)
	}
	b, err := os.ReadFile(seen)
	ok(t, err)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 6 || !strings.Contains(lines[4], "lo:") || lines[5] != dir+"/empty" {
		t.Fatalf("it sees %q", lines)
	}
	for i, kind := range []string{"net", "ipc", "uts", "pid"} {
		if own, err := os.Readlink("/proc/self/ns/" + kind); err != nil || own == lines[i] {
			t.Errorf("it is in the engine's namespace: %s %v", lines[i], err)
		}
	}
	if env, err := os.ReadFile(seen + ".env"); err != nil || strings.Contains(string(env), "HOME=") {
		t.Errorf("its environment is %q: %v", env, err)
	}
}

// A helper that crashes, hangs or lies refuses images, and nothing else happens.
func TestBadHelpers(t *testing.T) {
	d := digest.FromString("x")
	q := evidence.Request{Name: here, Images: []evidence.Image{{Digest: d, Signatures: []evidence.Signature{{Kind: evidence.Simple}}}}}
	rule := &policy.Rule{Action: policy.Signed, Need: 1, Signers: []evidence.Signer{{Format: evidence.FormatSigstore}}}
	for name, script := range map[string]string{
		"crashes": "kill -SEGV $$", "fails": "echo no >&2; exit 3", "says nothing": "exit 0", "no JSON": "echo yes", "too few": `echo '{"Findings":[]}'`,
		"too many": `echo '{"Findings":[{"OK":true},{"OK":true}]}'`, "endless": "yes", "an error, and a finding": `echo '{"Error":"x","Findings":[{"OK":true}]}'`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := dir + "/helper"
			ok(t, os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\n%s\n", script), 0o755))
			out, err := trust.New(trust.Options{Helper: path, Empty: dir + "/empty"}).Ask(t.Context(), rule, q)
			if err == nil || out.OK {
				t.Errorf("%+v %v", out, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if out, err := trust.New(trust.Options{Helper: "/bin/true", Empty: t.TempDir()}).Ask(ctx, rule, q); err == nil || out.OK {
		t.Errorf("%+v %v", out, err)
	}
	if out, err := trust.New(trust.Options{Helper: "/nowhere", Empty: t.TempDir()}).Ask(t.Context(), rule, q); err == nil || out.OK || !strings.Contains(err.Error(), "put it beside wherryd") {
		t.Errorf("%+v %v", out, err)
	}
}
