package container

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
)

// Execs are the execs of all containers.
type Execs struct{}

func newExecs(*Service) *Execs { return &Execs{} }

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

func (s *Service) View(ctx context.Context, id string) (View, error) { panic("not written yet") }
