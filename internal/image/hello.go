package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	helloName = "docker.io/library/hello:latest"

	// labelOar marks the built-in image's name in the database with the oar that it was made from. The image's own configuration has it
	// too, for people: what an image says of itself is never believed.
	labelOar = "dev.wherry.built-in"
)

// isHello says whether a name means the built-in image.
func isHello(name string) bool {
	return strings.TrimSuffix(name, ":latest") == "hello" || name == helloName
}

// builtIn makes the image `hello` from the oar binary, so that a first run needs no network, and makes it anew when oar has changed.
type builtIn struct {
	l   *layers
	oar string

	mu sync.Mutex // held while the image is made
}

func (b *builtIn) now() (string, error) {
	fi, err := os.Stat(b.oar)
	if err != nil {
		return "", fmt.Errorf("the built-in image is made from oar: %w", err)
	}
	return fmt.Sprintf("%d-%d", fi.Size(), fi.ModTime().UnixNano()), nil
}

// isOld says that the built-in image was made from another oar.
func (b *builtIn) isOld(img images.Image) bool {
	stamp := img.Labels[labelOar]
	if stamp == "" { // somebody's own
		return false
	}
	now, err := b.now()
	return err == nil && now != stamp
}

// stands says that `hello` means the built-in image: that there is none yet, or that it was made here.
func (b *builtIn) stands(ctx context.Context) bool {
	img, err := b.l.st.images.Get(ctx, helloName)
	if errdefs.IsNotFound(err) {
		return b.oar != ""
	}
	if err != nil {
		return false
	}
	return img.Labels[labelOar] != ""
}

func (b *builtIn) make(ctx context.Context) (images.Image, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stamp, err := b.now()
	if err != nil {
		return images.Image{}, err
	}
	if img, err := b.l.st.images.Get(ctx, helloName); err == nil && img.Labels[labelOar] == stamp {
		return img, nil // another request has just made it
	}
	layer, err := helloLayer(b.oar)
	if err != nil {
		return images.Image{}, fmt.Errorf("make the built-in image: %w", err)
	}
	made := time.Now().UTC()
	if fi, err := os.Stat(b.oar); err == nil {
		made = fi.ModTime().UTC() // the same oar makes the same image
	}
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Created: &made, Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}}
	config.Config.Entrypoint = []string{"/oar", "hello"}
	config.Config.Labels = map[string]string{labelOar: stamp, ocispec.AnnotationDescription: "built into Wherry: prints what its process sees"}
	id, err := b.l.build(ctx, buildRequest{layer: layer, config: config, ref: helloName, history: "built in"})
	if err != nil {
		return images.Image{}, fmt.Errorf("make the built-in image: %w", err)
	}
	ctx = in(ctx)
	b.l.st.naming.Lock()
	defer b.l.st.naming.Unlock()
	img, err := b.l.st.images.Get(ctx, helloName)
	if err != nil || img.Target.Digest != id {
		return img, err // somebody has taken the name away, or given it to another image
	}
	img.Labels = map[string]string{labelOar: stamp}
	return b.l.st.images.Update(ctx, img, "labels")
}

// helloLayer is the tar of a root file system with nothing but oar and a name for root.
func helloLayer(oar string) (io.Reader, error) {
	binary, err := os.ReadFile(oar)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	epoch := time.Unix(0, 0).UTC()
	for _, h := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"etc/", 0o755, nil}, {"proc/", 0o755, nil}, {"sys/", 0o755, nil}, {"dev/", 0o755, nil}, {"tmp/", 0o1777, nil},
		{"oar", 0o755, binary}, {"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/oar\n")},
	} {
		kind := byte(tar.TypeReg)
		if strings.HasSuffix(h.name, "/") {
			kind = tar.TypeDir
		}
		if err := t.WriteHeader(&tar.Header{Typeflag: kind, Name: h.name, Mode: h.mode, Size: int64(len(h.data)), ModTime: epoch}); err != nil {
			return nil, err
		}
		if _, err := t.Write(h.data); err != nil {
			return nil, err
		}
	}
	return &layer, t.Close()
}
