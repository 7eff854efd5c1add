package mutual

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"time"
)

// Whoever reaches the port may connect; that he may speak is known at the end of his handshake. Until then a connection is one of few, and has little
// time, so that strangers do not take all descriptors of the process.
const (
	mostHandshakes = 256
	handshakeTime  = 10 * time.Second
)

// handshaker accepts connections when their handshakes have come to an end, good or bad: of a bad one net/http tells client and log.
//
//	inner ──▶ pending (the oldest is closed for the one too many) ──▶ done ──▶ Accept
//
// Its goroutines end with Close.
type handshaker struct {
	net.Listener
	secure *Listeners
	config *tls.Config

	begin  sync.Once
	done   chan accepted
	closed chan struct{}

	mu      sync.Mutex // guards what follows
	pending []*tls.Conn
	over    bool
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

func (h *handshaker) Accept() (net.Conn, error) {
	h.begin.Do(func() { go h.listen() })
	select {
	case a := <-h.done:
		return a.conn, a.err
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handshaker) listen() {
	for {
		c, err := h.Listener.Accept()
		if err == nil {
			h.greet(tls.Server(c, h.config))
			continue
		}
		select {
		case h.done <- accepted{nil, err}: // who accepts waits a moment before the next one
		case <-h.closed:
			return
		}
	}
}

// greet does a connection's handshake beside the others.
func (h *handshaker) greet(c *tls.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		c.NetConn().Close()
		return
	}
	if len(h.pending) >= mostHandshakes {
		h.pending[0].NetConn().Close()
		h.pending = slices.Delete(h.pending, 0, 1)
	}
	h.pending = append(h.pending, c)
	_ = c.SetDeadline(time.Now().Add(handshakeTime))
	go func() {
		err := c.Handshake()
		h.mu.Lock()
		if i := slices.Index(h.pending, c); i >= 0 {
			h.pending = slices.Delete(h.pending, i, i+1)
		}
		h.mu.Unlock()
		if err == nil {
			_ = c.SetDeadline(time.Time{})
		}
		select {
		case h.done <- accepted{c, nil}:
		case <-h.closed:
			c.NetConn().Close()
		}
	}()
}

// Close ends the handshakes, too; what was accepted goes on.
func (h *handshaker) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return net.ErrClosed
	}
	h.over = true
	close(h.closed)
	for _, c := range h.pending {
		c.NetConn().Close()
	}
	return h.Listener.Close()
}
