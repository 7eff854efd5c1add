package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestMain removes the group above the tests' own, in all hierarchies.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		tops, _ := filepath.Glob(fmt.Sprintf("%s/wherry-test-%d", pattern, os.Getpid()))
		for _, top := range tops {
			if err := removeGroups(top); err != nil {
				fmt.Fprintln(os.Stderr, "left by the tests:", err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

func removeGroups(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}
