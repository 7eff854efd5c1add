// Package monitor measures running containers: processes and counters.
//
// It owns nothing. What it reads comes from the kernel, by the container's control group and its first process; nothing of the image is
// run or read. All methods are safe for many goroutines.
package monitor

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/event"
)

// Containers is what this package asks of the containers.
type Containers interface {
	View(ctx context.Context, id string) (containers.View, error)
}

// Service measures.
type Service struct {
	containers Containers
	events     *event.Bus
}

// New returns a service that tells who looked on bus.
func New(c Containers, bus *event.Bus) *Service { return &Service{containers: c, events: bus} }

// view is a container's, with a function that gives back what it holds.
func (s *Service) view(ctx context.Context, id string) (containers.View, func(), error) {
	v, err := s.containers.View(ctx, id)
	return v, func() {
		if v.Init != nil {
			_ = v.Init.Close()
		}
	}, err
}

// ended says that the container's first process is no more.
func ended(v *containers.View) bool {
	fds := []unix.PollFd{{Fd: int32(v.Init.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}
