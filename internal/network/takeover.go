package network

import (
	"fmt"
	"maps"
	"time"

	"github.com/containerd/errdefs"
)

// TakeOver gives a running container the published ports and the names of another one. The rules change in one transaction: each new
// connection reaches either the one or the other, and none is refused; connections that are there go on to the one that has them. The other
// one may have ended. What both had is undone by the same call the other way round; a call that was cut short may be made again.
func TakeOver(s *Service, from string, want PortsRequest) error {
	s.mu.Lock()
	old, h := s.holdings[from], s.holdings[want.ContainerID]
	if h == nil || !h.attached {
		s.mu.Unlock()
		return fmt.Errorf("container %s has no network: %w", shortID(want.ContainerID), errdefs.ErrFailedPrecondition)
	}
	before := rulesOf(&s.state, h)
	if old == nil || !old.attached {
		old = &holding{}
	}
	before = append(before, rulesOf(&s.state, old)...)
	s.mu.Unlock()

	p, wanted := publishingOf(s, h), published{want.Ports, want.PublishAll, want.Exposed}
	moved := p.take(old.Reserved)
	wishes, err := p.wishes(wanted.wanted())
	if err == nil {
		err = p.reserve(wishes)
	}
	if err != nil {
		for i, r := range moved { // also those whose sockets were closed and bound again
			old.Reserved[i].fd = r.fd
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return explainPorts(&s.state, err, nil)
	}
	s.mu.Lock()
	gone := flowsOf(old.Reserved)
	old.Reserved, old.Ports, old.Request.Understudy = nil, old.Request.published().shown(nil), true
	h.Reserved, h.Ports, h.Turn = p.got, wanted.shown(p.got), time.Now().UnixNano()
	h.Request.Ports, h.Request.PublishAll, h.Request.Exposed, h.Request.Understudy = want.Ports, want.PublishAll, want.Exposed, false
	after := append(rulesOf(&s.state, h), rulesOf(&s.state, old)...)
	s.mu.Unlock()
	if err := h.write(s.o.live()); err != nil {
		s.log(err) // the next life of the engine would find the ports where they were, and is told by the caller's own note
	}
	if err := s.fire.ChangePorts(before, after); err != nil {
		return err
	}
	s.mu.Lock()
	hide(&s.state, old, true)
	hide(&s.state, h, false)
	if old.Gave == nil {
		old.Gave = flows{}
	}
	maps.Copy(old.Gave, gone)
	s.mu.Unlock()
	if old.attached {
		s.log(old.write(s.o.live()))
	}
	return h.write(s.o.live())
}

// take adds another container's ports to what there is; they lead to this one from now on.
func (p *publishing) take(reserved []*reservation) (moved []*reservation) {
	for _, r := range reserved {
		m := *r
		if via := p.via[familyIndex(r.Host.Addr().Is6())]; via.n != nil {
			m.To = addrPort(via.to, r.To.Port())
		}
		moved = append(moved, &m)
	}
	p.have = append(p.have, moved...)
	return moved
}

// hide takes a container's names away from those on its networks, or gives them back. The caller holds the lock.
func hide(s *state, h *holding, hidden bool) {
	for _, e := range h.Endpoints {
		n := s.networks[e.NetworkID]
		if n == nil || e.Hidden == hidden {
			continue
		}
		n.forgetNames(h.Request.ContainerID, e)
		e.Hidden = hidden
		n.learnNames(h.Request.ContainerID, e)
	}
}

// settleTurns leaves ports that two holdings name to the one that took them last: the engine was killed before the other one's file was
// written.
func settleTurns(holdings map[string]*holding) {
	type key struct {
		host  string
		proto string
	}
	owner := map[key]*holding{}
	for _, h := range holdings {
		for _, r := range h.Reserved {
			k := key{r.Host.String(), string(r.Proto)}
			if r.Direct {
				continue
			}
			if o := owner[k]; o == nil || o.Turn < h.Turn {
				owner[k] = h
			}
		}
	}
	for _, h := range holdings {
		var kept []*reservation
		for _, r := range h.Reserved {
			if r.Direct || owner[key{r.Host.String(), string(r.Proto)}] == h {
				kept = append(kept, r)
			}
		}
		if len(kept) < len(h.Reserved) {
			h.Reserved, h.Ports = kept, h.Request.published().shown(kept)
		}
	}
}
