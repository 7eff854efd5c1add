package docker

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wherry.dev/wherry/internal/access"
)

// serveNothing is a server without services: every call of one panics.
func serveNothing(t *testing.T, log io.Writer) (*Server, *http.Client, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Services{}, About{}, slog.New(slog.NewTextHandler(log, nil)))
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}, socket
}

// TestForeignPages: a page of another site commands nothing with the certificate of who looks at it, be it by forms, scripts or web sockets.
func TestForeignPages(t *testing.T) {
	s := New(Services{}, About{}, slog.New(slog.DiscardHandler))
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "me"}}
	h := s.middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, row := range []struct {
		site, origin string
		unix         bool
		want         int
	}{
		{"", "", false, 204}, {"same-origin", "https://engine:2376", false, 204}, {"none", "", false, 204}, {"", "https://engine:2376", false, 204},
		{"cross-site", "", false, 403}, {"same-site", "https://other.engine", false, 403}, {"", "https://evil", false, 403}, {"", "null", false, 403}, {"", "https://engine:2377", false, 403},
		{"", "http://localhost", true, 204},
	} {
		r := httptest.NewRequest("POST", "https://engine:2376/v1.41/containers/x/stop", nil)
		r.TLS.VerifiedChains = [][]*x509.Certificate{{ca}}
		p := peer{tls: true}
		if row.unix {
			r.TLS, p = nil, peer{caller: &access.Caller{}}
		}
		if row.site != "" {
			r.Header.Set("Sec-Fetch-Site", row.site)
		}
		if row.origin != "" {
			r.Header.Set("Origin", row.origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p)))
		if w.Code != row.want {
			t.Errorf("%+v: %d %s", row, w.Code, w.Body)
		}
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	var log bytes.Buffer
	_, client, _ := serveNothing(t, &log)
	for range 2 {
		r, err := client.Get("http://e/networks/x")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != 500 || !strings.Contains(string(body), `{"message":"GET /networks/x: the engine met an error of its own`) {
			t.Errorf("%s %s", r.Status, body)
		}
	}
	if !strings.Contains(log.String(), "network.go") && !strings.Contains(log.String(), "goroutine") {
		t.Errorf("the log has no stack: %s", &log)
	}
}

func TestUnknownPeerIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip(err)
	}
	s := New(Services{}, About{}, slog.New(slog.DiscardHandler))
	go func() { _ = s.Serve(context.Background(), l) }()
	defer s.Close(context.Background())
	r, err := http.Get("http://" + l.Addr().String() + "/_ping")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != 403 {
		t.Errorf("a connection that is no unix socket: %s", r.Status)
	}
}

// TestHijack: what waits before the takeover goes on after it, the header is as clients expect it, and Close ends the connection.
func TestHijack(t *testing.T) {
	s, _, _ := serveNothing(t, io.Discard)
	socket := filepath.Join(t.TempDir(), "h")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	handled := make(chan error, 1)
	h := s.middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st := s.newStream(w, r, false)
		defer st.close()
		stdout, _ := st.outputs()
		go st.open()
		ctx, cancel := st.watch(r.Context())
		defer cancel()
		_, err := io.Copy(stdout, st)          // begins before open
		handled <- errors.Join(err, ctx.Err()) // the end of input is not the end of the request: output may still come
	}))
	server := &http.Server{Handler: h, ConnContext: s.withPeer}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	// Input may come in the same packet as the request.
	if _, err := io.WriteString(c, "POST /v1.41/x HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nearly "); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "late"); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.UnixConn).CloseWrite()
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	head, frames, _ := strings.Cut(string(all), "\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 101 UPGRADED\r\n") || !strings.Contains(head, "Upgrade: tcp") || !strings.Contains(head, "raw-stream") {
		t.Errorf("header %q (1.41 knows no multiplexed type)", head)
	}
	text := ""
	for len(frames) >= 8 {
		n := int(frames[7])
		text, frames = text+frames[8:8+n], frames[8+n:]
	}
	if text != "early late" {
		t.Errorf("echo %q", text)
	}
	if err := <-handled; err != nil {
		t.Errorf("copy: %v", err)
	}
	kept := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.hijacked)
	}
	for deadline := time.Now().Add(10 * time.Second); kept() > 0; time.Sleep(time.Millisecond) { // the handler ends after what it has told us
		if time.Now().After(deadline) {
			t.Fatal("the closed connection is still kept")
		}
	}
}

func TestHangUpIsNoticed(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if hungUp(a) {
		t.Error("a live connection is hung up")
	}
	_ = c.(*net.UnixConn).CloseWrite()
	if hungUp(a) {
		t.Error("a client that only closed its writing side is hung up")
	}
	c.Close()
	if !hungUp(a) {
		t.Error("a closed connection is not hung up")
	}
}

func TestErrorLineAfterProgress(t *testing.T) {
	for _, began := range []bool{false, true} {
		w := &recorder{header: http.Header{}}
		m := &messages{w: w}
		if began {
			m.progress(progressLine("Pulling"))
		}
		err := m.end(invalid("it broke"))
		if !began {
			if err == nil || w.body.Len() != 0 {
				t.Errorf("an early error is swallowed: %q", w.body.String())
			}
			continue
		}
		if err != nil || !strings.Contains(w.body.String(), `"errorDetail":{"message":"it broke"},"error":"it broke"}`) {
			t.Errorf("%v %q", err, w.body.String())
		}
	}
	w := &recorder{header: http.Header{}}
	m := &messages{w: w}
	m.progress(progressLine("Loaded image: busybox:1"))
	if got := w.body.String(); got != `{"stream":"Loaded image: busybox:1\n"}`+"\r\n" {
		t.Errorf("%q", got)
	}
}
