package task

import (
	"context"
	"path/filepath"

	"wherry.dev/wherry/internal/shim"
)

// OOM says that the kernel has killed processes of the container for want of memory.
type OOM struct {
	Kills  uint64 // so far
	Victim string // name of the last one, as far as the kernel says
}

// shortage is what the shim has told of such kills.
type shortage struct {
	OOM
	told uint64        // kills that Follow has told, in any engine's life
	news chan struct{} // has something when Kills may be more than told
}

func (t *Task) shortOfMemory(o shim.OOM) {
	t.mu.Lock()
	t.oom.OOM = OOM(o)
	t.mu.Unlock()
	select {
	case t.oom.news <- struct{}{}:
	default:
	}
}

// Follow is Wait, and tells of kills for want of memory while the container lives.
func (t *Task) Follow(ctx context.Context, told func(OOM)) (Exit, error) {
	for {
		select {
		case <-t.ended:
			return t.Wait(ctx)
		case <-ctx.Done():
			return Exit{}, context.Cause(ctx)
		case <-t.oom.news:
		}
		t.mu.Lock()
		now, news := t.oom.OOM, t.oom.Kills > t.oom.told && t.exit == nil // else the exit tells
		if news {
			t.oom.told = now.Kills
		}
		t.mu.Unlock()
		if news {
			told(now)
			_, _, _ = t.call(ctx, shim.Request{Method: shim.MethodNoted, Kills: now.Kills})
		}
	}
}

// ExecState is what an engine's earlier life has left of an exec.
type ExecState struct {
	ID   string
	Note []byte // of ExecOptions
	// Process is nil for one that has ended: its exit code is Code, and Told says whether somebody has waited for it.
	Process *Process
	Code    int
	Told    bool
}

// Execs are those that were started with a note: the running ones, and the last that have ended.
func (t *Task) Execs(ctx context.Context) ([]ExecState, error) {
	resp, _, err := t.call(ctx, shim.Request{Method: shim.MethodExecs})
	states := resp.Execs
	if err != nil { // the shim is gone: it has written them down
		var exit shim.Exit
		if shim.ReadJSON(filepath.Join(t.dir, shim.ExitFile), &exit) != nil {
			return nil, err
		}
		states = exit.Execs
	}
	var out []ExecState
	for _, s := range states {
		e := ExecState{ID: s.ID, Note: s.Note, Told: s.Told}
		if s.Exit != nil {
			e.Code = s.Exit.Code
		} else {
			e.Process = &Process{Pid: s.Pid, id: s.ID, task: t}
		}
		out = append(out, e)
	}
	return out, nil
}
