package docker

import (
	"bytes"
	"net/http"

	images "wherry.dev/wherry/internal/image"
)

type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func progressLine(status string) images.Progress { return images.Progress{Status: status} }
