package image

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// skopeo runs the program of that name, without a policy of its own.
func skopeo(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy", "--tmpdir", t.TempDir()}, args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("skopeo %s: %v (test/tools.sh installs it)\n%s", strings.Join(args, " "), err, &said)
	}
	return out.Bytes()
}

// TestSkopeo: another client reads what is pushed and saved here, and what it writes is loaded and pulled here, with the same files.
func TestSkopeo(t *testing.T) {
	host := realRegistry(t, nil)
	dir := t.TempDir()
	s := open(t)
	base := imported(t, s, host+"/team/base:1", file1("etc/a", "one"), file1("etc/b", "gone"))
	if _, err := s.Commit(t.Context(), layer(t, file1("etc/c", "two"), file1("etc/.wh.b", "")), CommitOptions{Parent: base, Ref: host + "/team/app:1", Config: base.Config.Config}); err != nil {
		t.Fatal(err)
	}
	app, err := s.Resolve(t.Context(), host+"/team/app:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string, s *Service, name string, exactly bool) {
		t.Helper()
		img, err := s.Resolve(t.Context(), name, nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		if exactly && img.ID != app.ID || len(img.Config.RootFS.DiffIDs) != 2 || img.Config.RootFS.DiffIDs[1] != app.Config.RootFS.DiffIDs[1] || img.Config.Config.Cmd[0] != "/bin/a" {
			t.Errorf("%s is another image: %+v", what, img.Config)
		}
		if b, err := os.ReadFile(filepath.Join(img.Lower[0], "etc/c")); err != nil || string(b) != "two" {
			t.Errorf("%s: %q %v", what, b, err)
		}
	}
	save := func(format string) string {
		t.Helper()
		var b bytes.Buffer
		if err := s.Save(t.Context(), []string{host + "/team/app:1"}, SaveOptions{Format: format}, &b); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "saved-"+format+".tar")
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	load := func(file string) *Service {
		t.Helper()
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fresh := open(t)
		if err := fresh.Load(t.Context(), f, TransferOptions{}); err != nil {
			t.Fatalf("load %s: %v", file, err)
		}
		return fresh
	}
	if err := s.Push(t.Context(), host+"/team/app:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	from := "docker://" + host + "/team/app:1"
	var seen struct {
		Digest   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(skopeo(t, "inspect", "--tls-verify=false", from), &seen); err != nil || seen.Digest != app.ID.String() || len(seen.Layers) != 2 || len(seen.RepoTags) != 1 {
		t.Errorf("inspect: %+v %v", seen, err)
	}
	skopeo(t, "copy", "--src-tls-verify=false", from, "oci-archive:"+dir+"/oci.tar:"+host+"/team/oci:1")
	same("its OCI archive", load(dir+"/oci.tar"), host+"/team/oci:1", true)
	skopeo(t, "copy", "--src-tls-verify=false", from, "docker-archive:"+dir+"/docker.tar:"+host+"/team/docker:1")
	same("its docker-archive", load(dir+"/docker.tar"), host+"/team/docker:1", false)
	for format, transport := range map[string]string{FormatDocker: "docker-archive:", FormatBoth: "docker-archive:", FormatOCI: "oci-archive:"} {
		name := host + "/team/back-" + strings.ReplaceAll(format+"x", "-", "") + ":1"
		skopeo(t, "copy", "--dest-tls-verify=false", transport+save(format), "docker://"+name)
		fresh := open(t)
		if err := fresh.Pull(t.Context(), name, TransferOptions{}); err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		same("what it read as "+transport+" of "+format, fresh, name, format == FormatOCI)
	}
	skopeo(t, "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2", from, "docker://"+host+"/team/v2:1")
	fresh := open(t)
	if err := fresh.Pull(t.Context(), host+"/team/v2:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	same("what it turned into Docker's types", fresh, host+"/team/v2:1", false)
}
