package shim

import (
	"fmt"
	"os"

	"wherry.dev/wherry/internal/cgroup"
)

// OOM says that the kernel has killed processes of the container for want of memory.
type OOM struct {
	Kills  uint64 `json:"kills"`            // so far
	Victim string `json:"victim,omitempty"` // name of the last one, as far as the kernel says
}

// shortage is what is known of such kills while the container lives.
type shortage struct {
	OOM
	watch   *cgroup.OOMWatch
	told    uint64        // kills that an engine has taken note of
	changed chan struct{} // closed at the next kill
}

// watchMemory follows the group's kills until the watch is closed.
func (s *Server) watchMemory(g *cgroup.Group) {
	w, err := cgroup.WatchOOM(g)
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // the end of the container tells of kills in any case
		return
	}
	defer w.Close()
	s.mu.Lock()
	s.oom.watch = w
	over := s.life.exit != nil
	s.mu.Unlock()
	if over {
		return
	}
	for {
		kills, err := w.Next()
		if err != nil {
			return
		}
		victim := g.OOMReport(s.born).Victim
		s.mu.Lock()
		s.oom.OOM = OOM{kills, victim}
		close(s.oom.changed)
		s.oom.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

// wait tells a client of kills, by notices with the request's number, and then of the end.
func (s *Server) wait(c *Conn, n uint64) Response {
	var told uint64
	for {
		s.mu.Lock()
		now := s.oom
		s.mu.Unlock()
		if now.Kills > max(told, now.told) {
			told = now.Kills
			_ = c.Send(Response{N: n, OOM: &now.OOM})
		}
		select {
		case <-s.ended:
			return Response{Exit: s.life.exit}
		case <-now.changed:
		}
	}
}

// noted is an engine's word that it has taken note of so many kills: its next life hears of later ones only.
func (s *Server) noted(kills uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oom.told = max(s.oom.told, kills)
}
