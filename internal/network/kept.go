package network

import (
	"net/netip"
	"os"
	"slices"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// Sockets are descriptors to be kept by somebody who lives as long as the container, its shim: those of its resolver, in which questions that come while no
// engine runs wait for the next one, which gets them back by Options.Kept, and where it publishes ports what has them reached at [::1]. There are
// none where all is kept already. The caller closes them.
func Sockets(s *Service, containerID string) []*os.File {
	files, fresh := s.resolvers.Sockets(containerID)
	s.mu.Lock()
	h := s.holdings[containerID]
	var link *os.File
	if h != nil && h.isLocal() {
		link = s.local.Link()
		fresh = fresh || link != nil && !h.linked
		h.linked = true
	}
	s.mu.Unlock()
	if link != nil && fresh {
		if fd, err := unix.FcntlInt(link.Fd(), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			files = append(files, os.NewFile(uintptr(fd), link.Name()))
		}
	}
	if fresh {
		return files
	}
	for _, f := range files {
		f.Close()
	}
	return nil
}

// isLocal says that the container publishes ports at 127.0.0.1. The caller holds the lock.
func (h *holding) isLocal() bool {
	return slices.ContainsFunc(h.Reserved, (*reservation).isLocal)
}

// isLocal says that the port is one of 127.0.0.1.
func (r *reservation) isLocal() bool {
	a := r.Host.Addr()
	return !r.Direct && r.Proto != network.SCTP && (a == netip.IPv4Unspecified() || a == netip.AddrFrom4([4]byte{127, 0, 0, 1}))
}
