package buildclient

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"wherry.dev/wherry/internal/buildopt"
)

// named offers the contexts that FROM and --from can name.
func (s *sources) named(o *buildopt.Options) error {
	list, err := o.NamedContexts()
	if err != nil {
		return err
	}
	for i, c := range list {
		value := c.Value
		switch {
		case c.Dir != "":
			value, err = s.namedDir(c, i)
		case c.OCI != "":
			value, err = s.namedLayout(c, i)
		}
		if err != nil {
			return fmt.Errorf("--build-context %s: %w", c.Name, err)
		}
		s.attrs["context:"+c.Name] = value
	}
	return nil
}

func (s *sources) namedDir(c buildopt.NamedContext, i int) (string, error) {
	dir, err := directory(c.Dir)
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.Dir, err)
	}
	mount := "named" + strconv.Itoa(i)
	if s.mounts[mount], err = fsutil.NewFS(dir); err != nil {
		return "", err
	}
	s.names[mount] = c.Name
	s.attrs["sharedkey:localdir:"+c.Name] = sharedKey(dir)
	return "local:" + mount, nil
}

// namedLayout offers a directory of the OCI's layout: DIRECTORY[:TAG][@DIGEST].
func (s *sources) namedLayout(c buildopt.NamedContext, i int) (string, error) {
	path, dgst, _ := strings.Cut(c.OCI, "@")
	tag := "latest"
	if at := strings.LastIndexByte(path, ':'); at > strings.LastIndexByte(path, '/') {
		path, tag = path[:at], path[at+1:]
	}
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return "", fmt.Errorf("%s is no directory of an OCI layout", path)
	}
	if dgst == "" {
		desc, err := layoutImage(path, tag)
		if err != nil {
			return "", err
		}
		dgst = desc.Digest.String()
	}
	if err := digest.Digest(dgst).Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", dgst, err)
	}
	store, err := contentlocal.NewStore(path)
	if err != nil {
		return "", err
	}
	id := "layout" + strconv.Itoa(i)
	s.stores[id] = store
	return "oci-layout://" + id + "@" + dgst, nil
}

// layoutImage is the image of a tag, or the only one.
func layoutImage(path, tag string) (*v1.Descriptor, error) {
	desc, err := ociindex.NewStoreIndex(path).Get(tag)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(path, "index.json"), err)
	}
	if desc != nil {
		return desc, nil
	}
	data, err := os.ReadFile(filepath.Join(path, "index.json"))
	if err != nil {
		return nil, err
	}
	var index v1.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(path, "index.json"), err)
	}
	if len(index.Manifests) == 1 && tag == "latest" {
		return &index.Manifests[0], nil
	}
	return nil, fmt.Errorf("%s holds %d images, and none is tagged %s", path, len(index.Manifests), tag)
}
