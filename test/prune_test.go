package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// raceTime, when set, is how long TestPruneRaces lasts: "2m".
const raceTime = "WHERRY_TEST_RACE_TIME"

// TestPruneRaces: images are pruned all the time beside pulls, loads, commits, runs and removals whose layers are partly the same. None
// fails, and each image has the files that it has to have.
func TestPruneRaces(t *testing.T) {
	lasts := 4 * time.Second
	if text := os.Getenv(raceTime); text != "" {
		var err error
		lasts, err = time.ParseDuration(text)
		ok(t, err)
	}
	e := newEngine(shared, filepath.Join(shared.dir, "race"))
	ok(t, e.start())
	t.Cleanup(func() { ok(t, e.shutdown(), os.RemoveAll(e.dir)) })
	base := busyboxLayer(t)
	standing := imageArchive(t, "race/standing:1", base, dataLayer("standing", 5))
	app := imageArchive(t, "race/app:1", base, dataLayer("app", 20), dataLayer("more", 3))
	do := func(args ...string) (string, error) {
		out, err := e.run("wherry", args...)
		if err != nil {
			err = fmt.Errorf("wherry %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out), err
	}
	show := func(image string) (string, error) {
		return do("run", "--rm", "--network", "none", image, "sh", "-c", dataSum)
	}
	var sums [2]string
	for i, file := range []string{standing, app} {
		_, err := do("load", "-q", "-i", file)
		ok(t, err)
		sums[i], err = show([]string{"race/standing:1", "race/app:1"}[i])
		ok(t, err)
	}
	pulled := registryAddress + "/race/app:1"
	for _, args := range [][]string{
		{"tag", "race/app:1", pulled}, {"push", "-q", pulled}, {"rmi", pulled, "race/app:1"},
		{"run", "--name", "changed", "--network", "none", "race/standing:1", "sh", "-c", "echo changed >/data/new"},
	} {
		_, err := do(args...)
		ok(t, err)
	}
	has := func(image, want string) error {
		got, err := show(image)
		if err == nil && got != want && want != "" {
			err = fmt.Errorf("%s has other files: %s", image, difference(want+"\n", got+"\n"))
		}
		return err
	}
	steps := func(all ...[]string) error {
		for _, args := range all {
			if _, err := do(args...); err != nil {
				return err
			}
		}
		return nil
	}
	workers := map[string]func() error{
		"prune": func() error { return steps([]string{"image", "prune", "-f"}) },
		"pull": func() error {
			if err := steps([]string{"pull", "-q", pulled}); err != nil {
				return err
			}
			if err := has(pulled, sums[1]); err != nil {
				return err
			}
			return steps([]string{"rmi", pulled})
		},
		"load": func() error {
			if err := steps([]string{"load", "-q", "-i", app}); err != nil {
				return err
			}
			if err := has("race/app:1", sums[1]); err != nil {
				return err
			}
			return steps([]string{"rmi", "race/app:1"})
		},
		"commit": func() error {
			if err := steps([]string{"commit", "changed", "race/committed:1"}); err != nil {
				return err
			}
			if err := has("race/committed:1", ""); err != nil {
				return err
			}
			return steps([]string{"rmi", "race/committed:1"})
		},
		"tag": func() error {
			return steps([]string{"tag", "race/standing:1", "race/moved:1"}, []string{"rmi", "race/moved:1"})
		},
		"run": func() error { return has("race/standing:1", sums[0]) },
	}
	var wg sync.WaitGroup
	end := time.Now().Add(lasts)
	for name, work := range workers {
		wg.Go(func() {
			times := 0
			for times < 2 || time.Now().Before(end) && !t.Failed() {
				if err := work(); err != nil {
					t.Errorf("%s, time %d: %v", name, times, err)
					return
				}
				times++
			}
			t.Logf("%s: %d times", name, times)
		})
	}
	wg.Wait()
}
