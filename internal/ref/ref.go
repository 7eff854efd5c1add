// Package ref reads image references as Docker does: [registry/][namespace/]repository[:tag][@digest].
package ref

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Reference is a normalised reference. Exactly one image store entry or registry object is meant by String.
type Reference struct {
	Domain string // registry host, "docker.io" where none was written
	Path   string // repository within the registry, "library/…" for Docker's own
	Tag    string // "latest" where neither tag nor digest was written
	Digest digest.Digest
}

// Parse normalises a reference; the error is errdefs.ErrInvalidArgument and names a right spelling where one is near.
func Parse(s string) (Reference, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("invalid reference format: %q: %s: %w", s, advice(s, err), errdefs.ErrInvalidArgument)
	}
	r := Reference{Domain: reference.Domain(named), Path: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// advice says what is wrong and what a right reference near it looks like.
func advice(s string, err error) string {
	lower := strings.ToLower(s)
	switch {
	case s == "":
		return "a name is needed, such as debian:12"
	case s != lower && valid(lower):
		return fmt.Sprintf("repository name must be lowercase: did you mean %q?", lower)
	case strings.Contains(s, "://"):
		_, rest, _ := strings.Cut(s, "://")
		return fmt.Sprintf("a reference has no scheme: did you mean %q?", rest)
	case strings.TrimSpace(s) != s:
		return fmt.Sprintf("it has spaces around it: did you mean %q?", strings.TrimSpace(s))
	case strings.HasSuffix(s, ":"):
		return fmt.Sprintf("the tag is empty: did you mean %q?", strings.TrimSuffix(s, ":"))
	case strings.Contains(s, "//"):
		return fmt.Sprintf("a part of the name is empty: did you mean %q?", strings.ReplaceAll(lower, "//", "/"))
	case strings.Contains(s, "@") && valid(s[:strings.IndexByte(s, '@')]):
		return "a digest is written @sha256: and 64 hexadecimal digits"
	case errors.Is(err, reference.ErrReferenceInvalidFormat):
		return "write [REGISTRY/]NAME[:TAG][@DIGEST], such as debian:12 or registry.example.org:5000/team/app:1"
	}
	return err.Error()
}

func valid(s string) bool {
	_, err := reference.ParseNormalizedNamed(s)
	return err == nil
}

// Name is the repository with its registry, without tag and digest.
func (r Reference) Name() string { return r.Domain + "/" + r.Path }

// String is the whole reference. A digest wins over a tag, which is only for people then.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name() + "@" + r.Digest.String()
	}
	return r.Name() + ":" + r.Tag
}

// Familiar is the short form that people write.
func (r Reference) Familiar() string {
	name := r.FamiliarName()
	switch {
	case r.Tag != "" && r.Digest == "":
		return name + ":" + r.Tag
	case r.Digest != "":
		return name + "@" + r.Digest.String()
	}
	return name
}

// FamiliarName is the short form of the repository.
func (r Reference) FamiliarName() string {
	if r.Domain != "docker.io" {
		return r.Name()
	}
	return strings.TrimPrefix(r.Path, "library/")
}

// FamiliarRepository is the repository without the registry, as progress lines show it.
func (r Reference) FamiliarRepository() string { return r.Path }
