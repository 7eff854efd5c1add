package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/logs"
	"wherry.dev/wherry/internal/task"
	"wherry.dev/wherry/internal/why"
)

const (
	// deathsFile holds the last ends of a container that were not plain ones, in its folder.
	deathsFile = "deaths.json"
	deathsKept = 10
	linesKept  = 10
)

// past is what is known of a container's earlier ends; Container.mu guards it.
type past struct {
	exits  int            // how often it has ended
	asks   []why.Ask      // of this life
	deaths []why.Evidence // oldest first; replaced, never written to
	read   bool           // deaths holds what the file does
	kept   Kept           // what was measured since the last change
}

// remember writes down how a container has ended, before anybody is told. A program that came to its end by itself and without complaint
// leaves its record only; another end is on the disk when this returns.
func remember(l life, r *Record, exit task.Exit) error {
	e := evidenceOf(l, r, exit)
	l.s.senders.forget(l.c.id)
	if e.Code == 0 && len(e.Asks) == 0 && (e.Memory == nil || e.Memory.Kills == 0) {
		return nil
	}
	return bury(l.c, e, r)
}

func evidenceOf(l life, r *Record, exit task.Exit) why.Evidence {
	c := l.c
	e := why.Evidence{Started: r.StartedAt, Ended: exit.At.UTC(), Code: exit.Code, Signal: exit.Signal, Program: programOf(r),
		Memory: exit.Memory, Processes: exit.Processes, Lost: exit.Lost, HostPids: r.HostConfig.PidMode.IsHost()}
	if exit.Lost && r.BootID != l.s.host.bootID {
		e.Lost, e.Rebooted = false, true
	}
	e.Sender, e.Inner = l.s.senders.of(c.id, exit)
	c.mu.Lock()
	e.Asks = slices.Clone(c.past.asks)
	c.mu.Unlock()
	if e.Code != 0 && !e.Rebooted && r.HostConfig.LogConfig.Type != "none" {
		e.Lines, _ = logs.Tail(r.Log.Dir, linesKept) // a log that cannot be read says nothing
	}
	if h := c.healthState(); h != nil && h.FailingStreak > 0 && len(h.Log) > 0 {
		last := h.Log[len(h.Log)-1]
		e.Health = &why.Health{Status: string(h.Status), Streak: h.FailingStreak, At: last.End.UTC(), Code: last.ExitCode, Output: last.Output}
	}
	return e
}

func programOf(r *Record) string {
	if i := r.HostConfig.Init; i != nil && *i {
		return "docker-init"
	}
	if command := r.command(); len(command) > 0 {
		return filepath.Base(command[0])
	}
	return ""
}

// failedToStart writes down that a start has not come about.
func (n *starting) failedToStart(code int, err error) error {
	if n.cause == "" {
		n.cause = why.NotStarted
	}
	e := why.Evidence{Ended: time.Now().UTC(), Code: code, Program: programOf(n.r), Failure: &why.Failure{Kind: n.cause, Text: err.Error()}}
	return bury(n.c, e, n.r)
}

// bury adds an end to the last ones. The caller holds op.
func bury(c *Container, e why.Evidence, r *Record) error {
	deaths := append(slices.Clone(deathsOf(c)), e)
	deaths = deaths[max(0, len(deaths)-deathsKept):]
	c.mu.Lock()
	c.past.deaths = deaths
	c.mu.Unlock()
	if r.HostConfig.AutoRemove {
		return nil // it is removed, and so would the file be
	}
	if err := writeDeaths(filepath.Join(c.dir, deathsFile), deaths); err != nil {
		return fmt.Errorf("write down how container %s ended: %w", r.Name, err)
	}
	return nil
}

func writeDeaths(path string, deaths []why.Evidence) error {
	b, err := json.Marshal(deaths)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// deathsOf are the ends that are known, oldest first.
func deathsOf(c *Container) []why.Evidence {
	c.mu.Lock()
	deaths, read := c.past.deaths, c.past.read
	c.mu.Unlock()
	if read {
		return deaths
	}
	b, err := os.ReadFile(filepath.Join(c.dir, deathsFile))
	if err == nil && json.Unmarshal(b, &deaths) != nil {
		deaths = nil // damaged: the container is none the worse for it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.past.read {
		c.past.deaths, c.past.read = deaths, true
	}
	return c.past.deaths
}

// graves are containers that were removed, the last ones, with how they had ended.
type graves struct {
	mu   sync.Mutex // guards what follows
	list []grave    // oldest first
}

type grave struct {
	record *Record
	deaths []why.Evidence
}

const (
	gravesKept   = 64
	disposedTold = time.Minute // how long those who wait are told how a container that removed itself has ended
)

func (g *graves) add(r *Record, deaths []why.Evidence) {
	bare := &Record{ID: r.ID, Name: r.Name, Status: Removing, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, ExitCode: r.ExitCode, HasRun: r.HasRun,
		Config: &container.Config{Entrypoint: r.Config.Entrypoint, Cmd: r.Config.Cmd}, HostConfig: &container.HostConfig{AutoRemove: r.HostConfig.AutoRemove}}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = append(g.list[max(0, len(g.list)-gravesKept+1):], grave{bare, deaths})
}

// find is index.find among them; the newest counts.
func (g *graves) find(name string) (grave, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := len(g.list) - 1; i >= 0; i-- {
		r := g.list[i].record
		if r.Name == strings.TrimPrefix(name, "/") || len(name) >= 4 && strings.HasPrefix(r.ID, name) {
			return g.list[i], true
		}
	}
	return grave{}, false
}

// disposed finds a container that has removed itself just now, by its whole id: a name may be another one's.
func (g *graves) disposed(id string) (*Record, bool) {
	found, ok := g.find(id)
	if !ok || found.record.ID != id || !found.record.HostConfig.AutoRemove || time.Since(found.record.FinishedAt) > disposedTold {
		return nil, false
	}
	return found.record, true
}
