package cli

import "strings"

// imageName is a reference taken apart by its marks only. Whether it is a right one, the engine decides.
type imageName struct {
	registry string // docker.io where none is written
	path     string
	tag      string
	digest   string
}

func splitName(s string) imageName {
	var n imageName
	s, n.digest, _ = strings.Cut(s, "@")
	if at := strings.LastIndexByte(s, ':'); at > strings.LastIndexByte(s, '/') {
		s, n.tag = s[:at], s[at+1:]
	}
	first, rest, ok := strings.Cut(s, "/")
	switch {
	case ok && (strings.ContainsAny(first, ".:") || first == "localhost" || first != strings.ToLower(first)):
		n.registry, n.path = first, rest
	default:
		n.registry, n.path = "docker.io", s
	}
	if n.registry == "index.docker.io" {
		n.registry = "docker.io"
	}
	if n.registry == "docker.io" && !strings.Contains(n.path, "/") {
		n.path = "library/" + n.path
	}
	return n
}

// String is the whole reference.
func (n imageName) String() string {
	s := n.registry + "/" + n.path
	if n.tag != "" {
		s += ":" + n.tag
	}
	if n.digest != "" {
		s += "@" + n.digest
	}
	return s
}
