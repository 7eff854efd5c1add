package explain

import (
	"context"
	"io"
	"testing"

	fstypes "github.com/tonistiigi/fsutil/types"
)

// stream is the engine's end of a transfer: it fetches one file of those that it is shown.
type stream struct {
	t     *testing.T
	fetch string
	id    uint32
	reply chan *fstypes.Packet
}

func (s *stream) Context() context.Context { return s.t.Context() }

func (s *stream) replies() chan *fstypes.Packet {
	if s.reply == nil {
		s.reply = make(chan *fstypes.Packet, 4)
	}
	return s.reply
}

func (s *stream) SendMsg(m any) error {
	p := m.(*fstypes.Packet)
	switch {
	case p.Type == fstypes.PACKET_STAT && p.Stat != nil:
		if p.Stat.Path == s.fetch {
			s.replies() <- &fstypes.Packet{Type: fstypes.PACKET_REQ, ID: s.id}
		}
		s.id++
	case p.Type == fstypes.PACKET_STAT && s.fetch == "", p.Type == fstypes.PACKET_DATA && len(p.Data) == 0:
		s.replies() <- &fstypes.Packet{Type: fstypes.PACKET_FIN}
	case p.Type == fstypes.PACKET_FIN:
		close(s.replies())
	}
	return nil
}

func (s *stream) RecvMsg(m any) error {
	for {
		p, ok := <-s.replies()
		if !ok {
			return io.EOF
		}
		*m.(*fstypes.Packet) = fstypes.Packet{Type: p.Type, ID: p.ID}
		return nil
	}
}
