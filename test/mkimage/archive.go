package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is one image to be written.
type archive struct {
	out, config string
	names       []string
	dirs        []string
	gzip        bool
	tar         *tar.Writer
}

// epoch is every image's time of creation: the same input gives the same bytes.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (a *archive) write() error {
	if a.out == "" || len(a.names) == 0 || len(a.dirs) == 0 {
		return errors.New("-o, -t and a directory are needed")
	}
	f, err := os.Create(a.out + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	a.tar = tar.NewWriter(f)
	layers, diffs, err := a.layers()
	if err != nil {
		return err
	}
	if err := a.metadata(layers, diffs); err != nil {
		return err
	}
	if err := a.tar.Close(); err != nil {
		return err
	}
	return os.Rename(a.out+".part", a.out)
}

func (a *archive) layers() (layers []ocispec.Descriptor, diffs []digest.Digest, err error) {
	for _, dir := range a.dirs {
		d, diff, err := a.layer(dir)
		if err != nil {
			return nil, nil, fmt.Errorf("layer of %s: %w", dir, err)
		}
		layers, diffs = append(layers, d), append(diffs, diff)
	}
	return layers, diffs, nil
}

func (a *archive) metadata(layers []ocispec.Descriptor, diffs []digest.Digest) error {
	image := ocispec.Image{Created: &epoch, Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	image.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: diffs}
	for _, dir := range a.dirs {
		image.History = append(image.History, ocispec.History{Created: &epoch, CreatedBy: "mkimage " + filepath.Base(dir)})
	}
	if a.config != "" {
		b, err := os.ReadFile(a.config)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &image.Config); err != nil {
			return fmt.Errorf("%s: %w", a.config, err)
		}
	}
	config, err := a.blob(ocispec.MediaTypeImageConfig, image)
	if err != nil {
		return err
	}
	manifest, err := a.blob(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers})
	if err != nil {
		return err
	}
	return a.index(manifest, config, layers)
}

func (a *archive) index(manifest, config ocispec.Descriptor, layers []ocispec.Descriptor) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	docker := []map[string]any{{"Config": blobPath(config.Digest), "RepoTags": a.names}}
	var paths []string
	for _, l := range layers {
		paths = append(paths, blobPath(l.Digest))
	}
	docker[0]["Layers"] = paths
	for _, name := range a.names {
		m := manifest
		m.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: name[strings.LastIndexByte(name, ':')+1:]}
		index.Manifests = append(index.Manifests, m)
	}
	for name, v := range map[string]any{"index.json": index, "manifest.json": docker, ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}} {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := a.entry(name, b); err != nil {
			return err
		}
	}
	return nil
}

func blobPath(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func (a *archive) blob(mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, a.entry(blobPath(d.Digest), b)
}

func (a *archive) entry(name string, b []byte) error {
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b)), ModTime: epoch}); err != nil {
		return err
	}
	_, err := a.tar.Write(b)
	return err
}

// layer packs one directory.
func (a *archive) layer(dir string) (ocispec.Descriptor, digest.Digest, error) {
	var packed bytes.Buffer
	var w io.WriteCloser = nopCloser{&packed}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}
	if a.gzip {
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		w, d.MediaType = z, ocispec.MediaTypeImageLayerGzip
	}
	sum := sha256.New()
	if err := pack(io.MultiWriter(w, sum), dir); err != nil {
		return d, "", err
	}
	if err := w.Close(); err != nil {
		return d, "", err
	}
	d.Digest, d.Size = digest.FromBytes(packed.Bytes()), int64(packed.Len())
	return d, digest.NewDigestFromBytes(digest.SHA256, sum.Sum(nil)), a.entry(blobPath(d.Digest), packed.Bytes())
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func pack(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	links := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return packFile(t, links, dir, path)
	})
	if err != nil {
		return err
	}
	return t.Close()
}

func packFile(t *tar.Writer, links map[uint64]string, dir, path string) error {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&fs.ModeSocket != 0 {
		return err
	}
	name, _ := filepath.Rel(dir, path)
	st := fi.Sys().(*syscall.Stat_t)
	if fi.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0 {
		return t.WriteHeader(&tar.Header{Name: filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name)), ModTime: epoch, Format: tar.FormatPAX})
	}
	target, _ := os.Readlink(path)
	h, err := tar.FileInfoHeader(fi, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname, h.Format = name, "", "", tar.FormatPAX
	h.AccessTime, h.ChangeTime, h.ModTime = time.Time{}, time.Time{}, h.ModTime.Truncate(time.Second)
	capability := make([]byte, 64)
	if n, err := syscall.Getxattr(path, "security.capability", capability); err == nil && fi.Mode().IsRegular() {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(capability[:n])}
	}
	if fi.Mode().IsRegular() && st.Nlink > 1 {
		if first, ok := links[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.WriteHeader(h)
		}
		links[st.Ino] = name
	}
	if err := t.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}
