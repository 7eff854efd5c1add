package docker

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSlowBodies: a body of JSON that comes a byte now and then has an end, and who sends one whole is not in its way.
func TestSlowBodies(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(Services{}, About{}, slog.New(slog.DiscardHandler))
	s.patience = 200 * time.Millisecond
	go func() { _ = s.Serve(t.Context(), l) }()
	defer s.Close(t.Context())
	slow, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprint(slow, "POST /volumes/create HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = io.WriteString(slow, " ")
			}
		}
	}()
	_ = slow.SetReadDeadline(time.Now().Add(30 * time.Second))
	r, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, _ := io.ReadAll(r.Body); r.StatusCode != 400 || !strings.Contains(string(body), "not come whole") {
		t.Errorf("%s %s", r.Status, body)
	}
}
