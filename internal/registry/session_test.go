package registry

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestUploadsThatBeginAnewEnd: a registry that takes some and forgets it, each time, is no progress.
func TestUploadsThatBeginAnewEnd(t *testing.T) {
	layer := sample(4 << 20)
	var begun atomic.Int32
	host := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
		switch r.Method {
		case http.MethodPost:
			if begun.Add(1) > 50 {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			panic(http.ErrAbortHandler)
		case http.MethodGet:
			w.Header().Set("Range", "0-2097151")
			w.WriteHeader(http.StatusNoContent)
		default: // the upload, and the blob
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	p, err := quick(Options{}).Client(t.Context(), parsed(t, host+"/a/b:1"), nil).Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Blob(t.Context(), Upload{Descriptor: described("", layer), Content: bytes.NewReader(layer)}); err == nil || begun.Load() > 2*tries {
		t.Errorf("%v after %d beginnings", err, begun.Load())
	}
}

// TestTheEndOfAnUploadMayTakeLong: a registry that has everything reads it again, or moves it, before it answers.
func TestTheEndOfAnUploadMayTakeLong(t *testing.T) {
	next := app(t)
	log := &record{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && r.ContentLength == 0 {
			<-time.After(3 * time.Second)
		}
		if r.ContentLength > 1<<20 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	})}
	img := imageOf(sample(3 << 20))
	client := quick(Options{Chunk: 1 << 20, Answer: 2 * time.Second}).Client(t.Context(), parsed(t, served(t, log)+"/a/b:1"), nil)
	if _, err := img.push(t.Context(), client); err != nil {
		t.Fatalf("%v\n%s", err, log.all())
	}
	if n := log.count("PUT /v2/a/b/blobs"); n != 3 { // the configuration, the layer that was too large, and the end of its parts
		t.Errorf("%d\n%s", n, log.all())
	}
}

// TestALostAnswerIsNoLostUpload: the registry is asked whether it has the blob before it is sent anew.
func TestALostAnswerIsNoLostUpload(t *testing.T) {
	next := app(t)
	var lost atomic.Bool
	log := &record{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") && !lost.Swap(true) {
			next.ServeHTTP(discard{}, r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})}
	layer := sample(2 << 20)
	p, err := quick(Options{}).Client(t.Context(), parsed(t, served(t, log)+"/a/b:1"), nil).Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Blob(t.Context(), Upload{Descriptor: described("", layer), Content: bytes.NewReader(layer)}); err != nil || log.count("PUT")+log.count("PATCH") != 1 {
		t.Errorf("%v\n%s", err, log.all())
	}
}

// slowly takes its time for each piece.
type slowly struct {
	io.ReaderAt
	pause time.Duration
}

func (s slowly) ReadAt(b []byte, at int64) (int, error) {
	<-time.After(s.pause)
	return s.ReaderAt.ReadAt(b, at)
}

// TestASlowSourceIsNoStall: a registry is not blamed for content that takes long to come from elsewhere.
func TestASlowSourceIsNoStall(t *testing.T) {
	log := &record{next: app(t)}
	layer := sample(10_000)
	p, err := quick(Options{Answer: time.Second}).Client(t.Context(), parsed(t, served(t, log)+"/a/b:1"), nil).Pusher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Blob(t.Context(), Upload{Descriptor: described("", layer), Content: slowly{bytes.NewReader(layer), 1200 * time.Millisecond}}); err != nil || log.count("PUT") != 1 {
		t.Errorf("%v\n%s", err, log.all())
	}
}
