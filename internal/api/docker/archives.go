package docker

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/files"
	images "wherry.dev/wherry/internal/image"
)

// fileRoutes are a container's file system seen from outside.
type fileRoutes struct {
	s      *files.Service
	images *images.Service
}

func (f *fileRoutes) add(add adder) {
	add("HEAD /containers/{id}/archive", f.stat)
	add("GET /containers/{id}/archive", f.get)
	add("PUT /containers/{id}/archive", f.put)
	add("GET /containers/{id}/export", f.export)
	add("GET /containers/{id}/changes", f.changes)
	add("POST /commit", f.commit)
}

func archivePath(q query) (string, error) {
	path := q.Get("path")
	if path == "" {
		return "", invalid("Path cannot be empty")
	}
	return path, nil
}

func setPathStat(w http.ResponseWriter, st container.PathStat) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(b))
	return nil
}

func (f *fileRoutes) stat(w http.ResponseWriter, r *http.Request) error {
	path, err := archivePath(queryOf(r))
	if err != nil {
		return err
	}
	st, err := f.s.Stat(r.Context(), r.PathValue("id"), path)
	if err != nil {
		return err
	}
	if err := setPathStat(w, st); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (f *fileRoutes) get(w http.ResponseWriter, r *http.Request) error {
	path, err := archivePath(queryOf(r))
	if err != nil {
		return err
	}
	tar, st, err := f.s.Get(r.Context(), r.PathValue("id"), path)
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := setPathStat(w, st); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return copyOut(w, tar)
}

// copyOut sends a body whose length is not known. When reading it breaks off the connection is cut, so that the client does not take the
// part for the whole.
func copyOut(w http.ResponseWriter, body io.Reader) error {
	if n, err := io.Copy(w, body); err != nil {
		if n == 0 {
			w.Header().Del("X-Docker-Container-Path-Stat")
			return err
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (f *fileRoutes) put(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	path, err := archivePath(q)
	if err != nil {
		return err
	}
	err = f.s.Put(r.Context(), r.PathValue("id"), path, r.Body, files.PutOptions{
		NoOverwriteDirNonDir: q.yes("noOverwriteDirNonDir"), CopyUIDGID: q.yes("copyUIDGID"),
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (f *fileRoutes) export(w http.ResponseWriter, r *http.Request) error {
	out := &lateHeader{w: w, contentType: "application/octet-stream"}
	err := f.s.Export(r.Context(), r.PathValue("id"), bulk{out})
	if err != nil && out.began {
		panic(http.ErrAbortHandler)
	}
	return err
}

// bulk is a lateHeader that leaves flushing to the server: for archives, not for what people watch.
type bulk struct{ *lateHeader }

func (b bulk) Write(p []byte) (int, error) {
	b.begin()
	return b.w.Write(p)
}

func (f *fileRoutes) changes(w http.ResponseWriter, r *http.Request) error {
	list, err := f.s.Changes(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

func (f *fileRoutes) commit(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	var config *container.Config
	if err := checkJSON(r); err != nil {
		return err
	}
	if err := decodeOptional(w, r, &config); err != nil {
		return err
	}
	ref := q.Get("repo")
	if ref != "" {
		ref = joinReference(ref, q.Get("tag"))
	}
	if q.Get("container") == "" {
		return invalid("commit: query parameter container is missing")
	}
	id, err := f.s.Commit(r.Context(), q.Get("container"), files.CommitOptions{
		Ref: ref, Author: q.Get("author"), Comment: q.Get("comment"), Changes: q.Values["changes"],
		NoPause: q.Has("pause") && !q.yes("pause"), Config: config,
	})
	if err != nil {
		return err
	}
	images.KeepOneForm(r.Context(), f.images) // the container's processes go on by now
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id.String()})
}
