package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	osexec "os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// createHooks runs prestart and createRuntime hooks: the namespaces exist, the program has not been executed.
func (s *start) createHooks(ctx context.Context) error {
	if !s.waitsForHooks() {
		return nil
	}
	state := specs.State{Version: specs.Version, ID: s.o.ID, Status: specs.StateCreating, Pid: s.process.Pid, Bundle: s.o.Bundle, Annotations: s.spec.Annotations}
	for _, list := range [][]specs.Hook{s.spec.Hooks.Prestart, s.spec.Hooks.CreateRuntime} { //nolint:staticcheck // prestart is deprecated, not gone
		if err := RunHooks(ctx, list, state); err != nil {
			return err
		}
	}
	_, err := s.toChild.Write([]byte{'p'})
	return err
}

// waitsForHooks says that the child must not go on before the hooks of the creation have run.
func (s *start) waitsForHooks() bool {
	h := s.spec.Hooks
	return h != nil && len(h.Prestart)+len(h.CreateRuntime) > 0 //nolint:staticcheck // prestart is deprecated, not gone
}

// RunHooks runs hooks one after another with the state on their standard input and nothing but their own environment.
func RunHooks(ctx context.Context, hooks []specs.Hook, state specs.State) error {
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if err := runHook(ctx, h, input); err != nil {
			return fmt.Errorf("hook %s: %w", h.Path, err)
		}
	}
	return nil
}

func runHook(ctx context.Context, h specs.Hook, input []byte) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	cmd := osexec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...)
	cmd.Stdin = bytes.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
