package criu

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	for text, want := range map[string]int{"Version: 3.17.1\n": 31701, "Version: 4.0\nGitID: v4.0\n": 40000, "Version: 3.19\n": 31900, "": -1, "Version: \n": -1, "Version: x.y\n": -1, "Version: 300.1\n": -1} {
		got, err := parseVersion(text)
		if want < 0 != (err != nil) || err == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// TestErrorsOf keeps criu's last words, without the times and places.
func TestErrorsOf(t *testing.T) {
	log := "(00.01) fine\n(00.02) Error (criu/util.c:1): first\nWarn  (criu/x.c:1): no\n(00.03) Error (criu/a.c:2): second: thing\n  (00.1) pie: 1: Error (criu/pie/r.c:3): third\nError (x.c:4): fourth \n"
	if got := errorsOf(strings.NewReader(log)); !slices.Equal(got, []string{"second: thing", "third", "fourth"}) {
		t.Errorf("%q", got)
	}
	if got := errorsOf(strings.NewReader("nothing\n")); got != nil {
		t.Errorf("%q", got)
	}
}

func FuzzErrorsOf(f *testing.F) {
	f.Add("(00.02) Error (criu/util.c:1): first\n")
	f.Fuzz(func(t *testing.T, log string) {
		if got := errorsOf(strings.NewReader(log)); len(got) > 3 {
			t.Errorf("%d reasons", len(got))
		}
	})
}

func TestFailuresNameTheirCause(t *testing.T) {
	dir := t.TempDir()
	if err := Dump(t.Context(), DumpOptions{Options: Options{Program: "/no/such/criu", Images: dir}, Pid: 1}); err == nil || !strings.Contains(err.Error(), "install it") {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := Version(t.Context(), "/no/such/criu"); err == nil || !strings.Contains(err.Error(), "install it") {
		t.Errorf("its version: %v", err)
	}
	if err := Dump(t.Context(), DumpOptions{Options: Options{Program: "/bin/false", Images: dir}, Pid: 1, PageServer: "nowhere"}); err == nil || !strings.Contains(err.Error(), "ADDRESS:PORT") {
		t.Errorf("page server: %v", err)
	}
	// A program that ends in failure without a word, with images from before beside it: none of them is taken for its own.
	if err := os.WriteFile(filepath.Join(dir, "dump.log"), []byte("Error (x): of another time\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Dump(t.Context(), DumpOptions{Options: Options{Program: "/bin/false", Images: dir}, Pid: 1}); err == nil || !strings.Contains(err.Error(), "exit status 1") || strings.Contains(err.Error(), "another time") {
		t.Errorf("a failure without a word: %v", err)
	}
}

func TestRestoreInAFolderThatIsNoRoot(t *testing.T) {
	_, err := Restore(t.Context(), RestoreOptions{Options: Options{Program: "/bin/false", Images: t.TempDir(), Root: "/no/such/root"}})
	if err == nil || !strings.Contains(err.Error(), "/no/such/root") {
		t.Errorf("%v", err)
	}
}
