package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestCheckpointRefuses: what criu could not bring back is told before anything is written, in one line, and the container goes on. That
// checkpoints work is tested where a kernel and a criu fit together (test/vm).
func TestCheckpointRefuses(t *testing.T) {
	h := newHost(t, nil, "sleep", "1000")
	h.refuse("does not exist", "checkpoint", "c")
	h.create()
	h.refuse("not running", "--criu", "/no/such", "checkpoint", "c")
	h.oar("start", "c")
	images := filepath.Join(h.dir, "images")
	must(t, os.WriteFile(filepath.Join(h.dir, streamsFile), []byte("[]"), 0o600))
	for _, row := range []struct {
		words string
		args  []string
	}{
		{"install it, or say where it is with --criu", []string{"--criu", "/no/such", "checkpoint", "--image-path", images, "c"}},
		{"soft, full, strict, ignore", []string{"checkpoint", "--manage-cgroups-mode", "x", "c"}},
		{"it is network", []string{"checkpoint", "--empty-ns", "user", "c"}},
		{"from the images' folder on", []string{"checkpoint", "--parent-path", "/x", "c"}},
		{"there are no earlier images", []string{"checkpoint", "--parent-path", "../none", "c"}},
		{"descriptors.json", []string{"restore", "--image-path", images, "-b", h.dir, "other"}},
		{"as that says", []string{"restore", "--lsm-profile", "apparmor:x", "--image-path", h.dir, "-b", h.dir, "other"}},
		{"always pivots", []string{"restore", "--no-pivot", "--image-path", h.dir, "-b", h.dir, "other"}},
	} {
		out, err := h.try(row.args...)
		if err == nil || !strings.Contains(out, row.words) || strings.Count(out, "\n") != 1 {
			t.Errorf("%q: %v, %q", row.args, err, out)
		}
	}
	if _, err := os.Stat(images); err == nil {
		t.Error("something was written")
	}
	h.await(specs.StateRunning)
}

func TestCheckpointRefusesWhatIsHeldOutside(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.IPCNamespace {
				s.Linux.Namespaces[i].Path = "/proc/self/ns/ipc"
			}
		}
	}, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	h.refuse("ipc namespace of /proc/self/ns/ipc", "--criu", "/no/such", "checkpoint", "c")
}

func TestCheckpointRefusesUserNamespaces(t *testing.T) {
	h := newHost(t, func(s *specs.Spec) {
		ids := []specs.LinuxIDMapping{{HostID: 0x31000000, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}, "sleep", "1000")
	h.create()
	h.oar("start", "c")
	h.refuse("user namespace", "--criu", "/no/such", "checkpoint", "c")
	h.await(specs.StateRunning)
}

// TestStreamsOfImages: names from an archive are names of streams, or refused.
func TestStreamsOfImages(t *testing.T) {
	dir := t.TempDir()
	for text, good := range map[string]bool{
		`["file[1b:4]","pipe:[123]",""]`: true, `["","","","pipe:[1]"]`: true, `[]`: true, `null`: true,
		`["file[1b:4]:x"]`: false, `["/etc/passwd"]`: false, `["net[1]:external-network"]`: false, `["pipe:[1"]`: false, `["mnt[/]"]`: false, `{}`: false, `x`: false,
		`["file[zz]"]`: false,
	} {
		must(t, os.WriteFile(filepath.Join(dir, streamsFile), []byte(text), 0o600))
		if list, err := readStreams(dir); good != (err == nil) || len(list) > 3 {
			t.Errorf("%s: %q, %v", text, list, err)
		}
	}
}

func FuzzStreamsOfImages(f *testing.F) {
	f.Add(`["file[1b:4]","pipe:[123]",""]`)
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, streamsFile), []byte(text), 0o600))
		list, err := readStreams(dir)
		for _, name := range list {
			if err == nil && name != "" && !strings.HasPrefix(name, "file[") && !strings.HasPrefix(name, "pipe:[") {
				t.Errorf("%q has %q", text, name)
			}
		}
	})
}
