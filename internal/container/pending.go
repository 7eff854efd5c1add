package container

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/task"
)

type waiter struct{}
type health struct{}

// Execs are the execs of all containers.
type Execs struct{}

func newExecs(*Service) *Execs                                             { return &Execs{} }
func copyUp(r *Record, destination, dir string) error                      { return nil }
func (s *Service) watch(context.Context, *Container, *task.Task)           { panic("not written yet") }
func (s *Service) startHealth(context.Context, *Container)                 { panic("not written yet") }
func (s *Service) ended(context.Context, *Container, task.Exit)            { panic("not written yet") }
func (s *Service) restartAfter(context.Context, *Container, time.Duration) { panic("not written yet") }
func (s *Service) removeNow(context.Context, *Container, RemoveOptions) error {
	panic("not written yet")
}

func (s *Service) Start(ctx context.Context, id string) error { panic("not written yet") }

// StopOptions: a nil Timeout is the container's own (else 10 s), -1 waits for ever; an empty Signal is the container's own.
type StopOptions struct {
	Signal  string
	Timeout *int
}

func (s *Service) Stop(ctx context.Context, id string, o StopOptions) error { panic("not written yet") }
func (s *Service) Restart(ctx context.Context, id string, o StopOptions) error {
	panic("not written yet")
}
func (s *Service) Kill(ctx context.Context, id, signal string) error { panic("not written yet") }
func (s *Service) Pause(ctx context.Context, id string) error        { panic("not written yet") }
func (s *Service) Unpause(ctx context.Context, id string) error      { panic("not written yet") }
func (s *Service) Rename(ctx context.Context, id, name string) error { panic("not written yet") }
func (s *Service) Update(ctx context.Context, id string, u container.UpdateConfig) (container.UpdateResponse, error) {
	panic("not written yet")
}

// RemoveOptions: Volumes also removes anonymous volumes.
type RemoveOptions struct{ Force, Volumes bool }

func (s *Service) Remove(ctx context.Context, id string, o RemoveOptions) error {
	panic("not written yet")
}
func (s *Service) Prune(ctx context.Context, filters map[string]map[string]bool) (*container.PruneReport, error) {
	panic("not written yet")
}

// Wait's channel yields one answer. It is armed when Wait returns (so: wait, then start).
func (s *Service) Wait(ctx context.Context, id string, c container.WaitCondition) (<-chan container.WaitResponse, error) {
	panic("not written yet")
}

// ListOptions of List; filters have Docker's names.
type ListOptions struct {
	All, Size bool
	Limit     int
	Filters   map[string]map[string]bool
}

func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	panic("not written yet")
}
func (s *Service) Inspect(ctx context.Context, id string, size bool) (container.InspectResponse, error) {
	panic("not written yet")
}

// AttachOptions of Attach. Streams that are nil are not attached. With a terminal all output goes to Stdout.
type AttachOptions struct {
	Stdin          io.Reader // read until EOF, then (StdinOnce) the container's stdin is closed
	Stdout, Stderr io.Writer
	Logs, Stream   bool   // replay what is there; follow what comes
	DetachKeys     string // "": ctrl-p,ctrl-q
	Ready          func() // called when attached: nothing printed after that is missed
}

// Attach returns at the container's exit, at detach, or when ctx ends.
func (s *Service) Attach(ctx context.Context, id string, o AttachOptions) error {
	panic("not written yet")
}

// LogsOptions of Logs; Tail < 0 means all.
type LogsOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until                                time.Time
	Tail                                        int
}

func (s *Service) Logs(ctx context.Context, id string, o LogsOptions, stdout, stderr io.Writer) error {
	panic("not written yet")
}

func (s *Service) ExecCreate(ctx context.Context, id string, r container.ExecCreateRequest) (execID string, err error) {
	panic("not written yet")
}

// ExecStreams of ExecStart: as AttachOptions.
type ExecStreams struct {
	Detach         bool
	Tty            *bool // nil: as created
	ConsoleSize    *[2]uint
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Started        func() // called once execve has happened or the exec has failed to start, before any output is written
}

// ExecStart runs the exec and, without Detach, returns when it has exited.
func (s *Service) ExecStart(ctx context.Context, execID string, o ExecStreams) error {
	panic("not written yet")
}
func (s *Service) ExecInspect(execID string) (container.ExecInspectResponse, error) {
	panic("not written yet")
}
func (s *Service) ExecResize(ctx context.Context, execID string, rows, cols uint16) error {
	panic("not written yet")
}
func (s *Service) ConnectNetwork(ctx context.Context, id, network string, e *network.EndpointSettings) error {
	panic("not written yet")
}
func (s *Service) DisconnectNetwork(ctx context.Context, id, network string, force bool) error {
	panic("not written yet")
}

func (s *Service) View(ctx context.Context, id string) (View, error) { panic("not written yet") }
