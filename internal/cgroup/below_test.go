package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestBelow(t *testing.T) {
	g, err := Create(fmt.Sprintf("/wherry-test-%d/below", os.Getpid()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Delete() }()
	for _, dir := range g.Dirs() {
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	all, err := Below(g, map[string]string{"": "/sub"})
	if err != nil {
		t.Fatal(err)
	}
	for name, dir := range g.Dirs() {
		if all.Dirs()[name] != filepath.Join(dir, "sub") {
			t.Errorf("%s: %s", name, all.Dirs()[name])
		}
		if name == unified {
			continue
		}
		one, err := Below(g, map[string]string{name: "sub"})
		if err != nil {
			t.Fatal(err)
		}
		for other, dir := range g.Dirs() {
			if want := map[bool]string{true: filepath.Join(dir, "sub"), false: dir}[other == name]; one.Dirs()[other] != want {
				t.Errorf("%s below in %s alone: %s", other, name, one.Dirs()[other])
			}
		}
	}
	for _, bad := range []map[string]string{{"": "nothing"}, {"": "../../below-not"}, {"": ".."}, {"": "/sub/../../below"}, {"nonsense": "sub"}, {"": "cgroup.procs"}} {
		if _, err := Below(g, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if same, err := Below(g, map[string]string{"": "/sub/.."}); err != nil || same.anyDir() != g.anyDir() {
		t.Errorf("the group itself: %v, %v", same, err)
	}
}
