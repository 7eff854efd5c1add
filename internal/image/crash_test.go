package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/apart"
	"wherry.dev/wherry/internal/event"
)

const crashVariable = "WHERRY_IMAGE_CRASH_ROOT"

// TestMain runs the tests in a mount namespace of their own: mounts of layers end with them. The test program is also the engine that
// TestKilledAnywhere kills.
func TestMain(m *testing.M) {
	if root := os.Getenv(crashVariable); root != "" {
		if err := churn(root); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	apart.Tests(unix.CLONE_NEWNS, m.Run)
}

func contentOf(name string) string { return strings.Repeat(name+" ", 20000) }

// churn makes, names, replaces and removes images until it is killed.
func churn(root string) error {
	ctx := context.Background()
	s, err := Open(ctx, Options{Root: root, Events: event.New()})
	if err != nil {
		return err
	}
	for i := range 10000 {
		name := fmt.Sprintf("team/app-%d-%d:1", os.Getpid(), i)
		if _, err := s.Import(ctx, layerOf(file1("name", contentOf(name))), ImportOptions{Ref: name}); err != nil {
			return fmt.Errorf("import: %w", err)
		}
		fmt.Println("made", name)
		if err := s.Tag(ctx, name, "newest"); err != nil {
			return fmt.Errorf("tag: %w", err)
		}
		if i%3 == 2 {
			fmt.Println("remove", name)
			if _, err := s.Remove(ctx, name, RemoveOptions{}); err != nil {
				return fmt.Errorf("remove: %w", err)
			}
		}
	}
	return nil
}

// TestKilledAnywhere: after kill -9 at any moment the store opens; what was told to be made is there; what is listed is whole.
func TestKilledAnywhere(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	made := map[string]bool{}
	for round := range 8 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), crashVariable+"="+root)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(150+round*37) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("it ended by itself: %s", out.String())
		}
		if err := cmd.Wait(); !strings.Contains(fmt.Sprint(err), "killed") {
			t.Fatalf("%v: %s", err, out.String())
		}
		for line := range strings.Lines(out.String()) {
			verb, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			made[name] = verb == "made"
		}
		var said []string
		s, err := Open(t.Context(), Options{Root: root, Events: event.New(), Log: func(err error) { said = append(said, err.Error()) }})
		if err != nil {
			t.Fatal(err)
		}
		checkStore(t, s, made)
		if len(said) > 0 {
			t.Errorf("damage: %q", said)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(made) == 0 {
		t.Error("nothing was made between the kills")
	}
}

func checkStore(t *testing.T, s *Service, made map[string]bool) {
	t.Helper()
	listed := map[string]bool{}
	list, err := s.List(t.Context(), ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, sum := range list {
		for _, name := range sum.RepoTags {
			listed[name] = true
			img, err := s.Resolve(t.Context(), name, nil)
			if err != nil {
				t.Errorf("%s is listed and not whole: %v", name, err)
				continue
			}
			b, err := os.ReadFile(filepath.Join(img.Lower[0], "name"))
			if err != nil || name != "newest:latest" && string(b) != contentOf(name) {
				t.Errorf("%s has other content: %.40q %v", name, b, err)
			}
			m, err := s.manifest(in(t.Context()), img.Manifest)
			if err != nil {
				t.Error(err)
				continue
			}
			if err := s.verify(t.Context(), m.Layers[0]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, there := range made {
		if there && !listed[name] {
			t.Errorf("%s was made and is gone", name)
		}
	}
}

// TestFullDisk: on a file system without room each way of making an image says so, leaves nothing, and what was there before stays usable.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	at := t.TempDir()
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=12m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
	s, err := Open(t.Context(), Options{Root: filepath.Join(at, "root"), Events: event.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := imported(t, s, "before", file1("a", "b"))
	big := file1("big", string(mixed(1<<20))+strings.Repeat("z", 20<<20)) // little when compressed, too much unpacked
	huge := file1("huge", string(mixed(20<<20)))
	host := realRegistry(t, nil)
	origin := open(t)
	imported(t, origin, host+"/a/big:1", big)
	if err := origin.Push(t.Context(), host+"/a/big:1", TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	archived := func(f file) *bytes.Buffer {
		var b bytes.Buffer
		name := "saved-" + f.name
		imported(t, origin, name, f)
		if err := origin.Save(t.Context(), []string{name}, SaveOptions{}, &b); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	rows := map[string]func() error{
		"import": func() error {
			_, err := s.Import(t.Context(), layer(t, big), ImportOptions{Ref: "x"})
			return err
		},
		"import of what does not compress": func() error {
			_, err := s.Import(t.Context(), layer(t, huge), ImportOptions{Ref: "x"})
			return err
		},
		"commit": func() error {
			_, err := s.Commit(t.Context(), layer(t, big), CommitOptions{Parent: before, Ref: "x"})
			return err
		},
		"load":                           func() error { return s.Load(t.Context(), archived(big), TransferOptions{}) },
		"load of what does not compress": func() error { return s.Load(t.Context(), archived(huge), TransferOptions{}) },
		"pull":                           func() error { return s.Pull(t.Context(), host+"/a/big:1", TransferOptions{}) },
	}
	for name, try := range rows {
		if err := try(); err == nil || !strings.Contains(err.Error(), "is full") {
			t.Errorf("%s: %v", name, err)
		}
		du, err := s.DiskUsage(t.Context())
		if err != nil || du.TotalCount != 1 || du.TotalSize > 1<<20 {
			t.Errorf("after %s: %+v %v", name, du, err)
		}
		if _, err := s.Resolve(t.Context(), "before", nil); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
		if _, err := s.Import(t.Context(), layer(t, file1("small", name)), ImportOptions{Ref: "small"}); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
		if _, err := s.Remove(t.Context(), "small", RemoveOptions{}); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

// mixed are bytes that do not compress.
func mixed(n int) []byte {
	out := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte(x)
	}
	return out
}
