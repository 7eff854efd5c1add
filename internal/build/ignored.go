package build

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"wherry.dev/wherry/internal/archive"
)

const ignoreFile = ".dockerignore"

// ignoreLimit is the most that a file of patterns may have.
const ignoreLimit = 1 << 20

// ignored are the files of an archive that a client has sent for the builder alone: a Dockerfile and a .dockerignore that the latter names.
// Everything else that it names the client has left out itself.
func ignored(in *io.SectionReader, dockerfile string) ([]string, error) {
	var entries *tar.Reader
	var head [262]byte
	if _, err := in.ReadAt(head[:], 0); err == nil && string(head[257:]) == "ustar" {
		entries = tar.NewReader(in) // which skips what it does not read
	} else {
		plain, err := archive.Decompress(in)
		if err != nil {
			return nil, nil //nolint:nilerr // BuildKit says what is wrong with it
		}
		defer plain.Close()
		entries = tar.NewReader(plain)
	}
	for {
		h, err := entries.Next()
		if err != nil {
			return nil, nil //nolint:nilerr // there is none; or it is no archive, which BuildKit may know
		}
		if path.Clean(h.Name) != ignoreFile || h.Typeflag != tar.TypeReg {
			continue
		}
		if h.Size > ignoreLimit {
			return nil, fmt.Errorf("%s has %d bytes: it may have %d: %w", ignoreFile, h.Size, ignoreLimit, errInvalid)
		}
		patterns, err := ignorefile.ReadAll(entries)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", ignoreFile, err)
		}
		return named(patterns, dockerfile)
	}
}

// named are the builder's files that patterns name.
func named(patterns []string, dockerfile string) (out []string, err error) {
	files := []string{ignoreFile, path.Join(".", dockerfile)}
	if dockerfile == "" {
		files = []string{ignoreFile, "Dockerfile", "dockerfile"}
	}
	for _, name := range files {
		hidden, err := patternmatcher.MatchesOrParentMatches(name, patterns)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w: %w", ignoreFile, err, errInvalid)
		}
		if hidden {
			out = append(out, name)
		}
	}
	return out, nil
}

// splitInputs are a context at an address for BuildKit's Dockerfile frontend: the Dockerfile where it is, and the context without some files.
func splitInputs(ctx context.Context, address string, without []string) (map[string]*pb.Definition, error) {
	const file = "context"
	archive := llb.HTTP(address, llb.Filename(file), llb.WithCustomName("[internal] load remote build context"))
	whole := llb.Scratch().File(llb.Copy(archive, "/"+file, "/", &llb.CopyInfo{AttemptUnpack: true}))
	rest := whole
	for _, name := range without {
		rest = rest.File(llb.Rm(name, llb.WithAllowNotFound(true)), llb.WithCustomName("[internal] leave out "+name))
	}
	out := map[string]*pb.Definition{}
	for name, state := range map[string]llb.State{"dockerfile": whole, "context": rest} {
		def, err := state.Marshal(ctx)
		if err != nil {
			return nil, err
		}
		out[name] = def.ToPB()
	}
	return out, nil
}
