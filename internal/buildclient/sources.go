package buildclient

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/tonistiigi/fsutil"

	"wherry.dev/wherry/internal/buildopt"
)

// sources are the contexts of a build and its Dockerfile, as the engine is told of them.
type sources struct {
	attrs  map[string]string
	mounts map[string]fsutil.FS
	stores map[string]content.Store
	attach []session.Attachable
	names  map[string]string // of the contexts that mounts are; the main one has none
	key    string            // under which the engine keeps copies of the directories

	dir        string // the main context, where it is a directory
	dockerfile *textFile
	ignore     *textFile
}

// Names of mounts.
const (
	mountContext    = "context"
	mountDockerfile = "dockerfile"
)

// largestDockerfile is what BuildKit's frontend takes, and more than anybody writes.
const largestDockerfile = 2 << 20

func openSources(o *buildopt.Options, in io.Reader) (*sources, error) {
	s := &sources{attrs: map[string]string{}, mounts: map[string]fsutil.FS{}, stores: map[string]content.Store{}, names: map[string]string{}}
	var err error
	switch {
	case o.Context == "-":
		err = s.fromInput(o, in)
	case buildopt.Remote(o.Context):
		err = s.fromAddress(o, in)
	default:
		err = s.fromDir(o, in)
	}
	if err == nil {
		err = s.named(o)
	}
	if err != nil {
		return nil, err
	}
	for name, mount := range s.mounts {
		if name != mountDockerfile && s.dockerfile != nil {
			s.mounts[name] = withModes(mount, s.dockerfile.mode)
		}
	}
	return s, nil
}

// Close lets go of what was opened.
func (s *sources) Close() {}

// fromDir takes a directory of this machine.
func (s *sources) fromDir(o *buildopt.Options, in io.Reader) (err error) {
	if s.dir, err = directory(o.Context); err != nil {
		return fmt.Errorf("the context %s: %w", o.Context, err)
	}
	if s.mounts[mountContext], err = fsutil.NewFS(s.dir); err != nil {
		return fmt.Errorf("the context %s: %w", o.Context, err)
	}
	s.key = sharedKey(s.dir)
	if o.File == "-" {
		s.dockerfile, err = inputDockerfile(in)
	} else {
		s.dockerfile, err = readDockerfile(s.dir, o.File)
	}
	if err != nil {
		return err
	}
	if s.ignore, err = readIgnore(s.dir, s.dockerfile.path, o.IgnoreFile); err != nil {
		return err
	}
	s.mountDockerfile()
	return nil
}

// mountDockerfile offers the Dockerfile and the rules of what to ignore. The rules of .dockerignore go under the name of those that belong to
// the Dockerfile alone: so the engine asks once, not twice, and never walks the context to find them.
func (s *sources) mountDockerfile() {
	name := filepath.Base(s.dockerfile.path)
	ignore := &textFile{path: name + ".dockerignore", data: []byte("# nothing\n"), modified: s.dockerfile.modified}
	if s.ignore != nil {
		ignore.data, ignore.modified = s.ignore.data, s.ignore.modified
	}
	s.mounts[mountDockerfile] = textFiles{{path: name, data: s.dockerfile.data, modified: s.dockerfile.modified}, ignore}
	s.attrs["filename"] = name
}

// fromInput takes a tar file, or a Dockerfile without a context.
func (s *sources) fromInput(o *buildopt.Options, in io.Reader) error {
	r := bufio.NewReaderSize(in, 1<<10)
	head, err := r.Peek(1 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the context from the input: %w", err)
	}
	if len(head) == 0 {
		return errors.New("the input is empty: send a tar file as context, or a Dockerfile")
	}
	if isArchive(head) {
		up := uploadprovider.New()
		s.attach = append(s.attach, up)
		s.attrs["context"] = up.Add(io.NopCloser(r))
		if o.File != "" {
			s.attrs["filename"] = o.File
		}
		return nil
	}
	if o.File != "" {
		return errors.New("--file names a Dockerfile, and the input is one too: it can only be a tar file then")
	}
	if s.dockerfile, err = inputDockerfile(r); err != nil {
		return err
	}
	s.mounts[mountContext] = textFiles{}
	s.key = sharedKey("-")
	s.mountDockerfile()
	return nil
}

// fromAddress lets the engine fetch the context, with the Dockerfile in it or from the input.
func (s *sources) fromAddress(o *buildopt.Options, in io.Reader) (err error) {
	s.attrs["context"] = o.Context
	switch o.File {
	case "":
	case "-":
		if s.dockerfile, err = inputDockerfile(in); err != nil {
			return err
		}
		s.attrs["dockerfilekey"] = mountDockerfile
		s.mountDockerfile()
	default:
		s.attrs["filename"] = o.File
	}
	return nil
}

func directory(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", bare(err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", bare(err)
	}
	if !st.IsDir() {
		return "", errors.New("it is no directory; a Dockerfile is named with --file")
	}
	return real, nil
}

// bare is the cause of an error about a path that is named already.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// sharedKey is the same for each build of a directory by this user: the engine keeps one copy for all of them.
func sharedKey(dir string) string {
	host, _ := os.Hostname() // "" is as good as another one
	sum := sha256.Sum256([]byte(strings.Join([]string{"wherry", host, strconv.Itoa(os.Getuid()), dir}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// isArchive tells a tar file, plain or compressed, from text.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b\x08", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if strings.HasPrefix(string(head), magic) {
			return true
		}
	}
	return len(head) >= 262 && string(head[257:262]) == "ustar"
}
