// Package explain tells why the steps of a build ran: it keeps what went into the last build of a context, and names the first thing that differs.
//
// A Record is made for each build that succeeds: the steps of its Dockerfile with what they depend on, the files of its contexts with their
// hashes, the digests of base images. It is written to a directory of the user's cache, a file for each (context, Dockerfile, target,
// platforms), where the oldest give way. Values that may be secret are kept as keyed hashes, files as hashes only.
package explain

import "strconv"

// Record of a build.
type Record struct {
	Salt  []byte // key of the hashes of values
	Rules string // of .dockerignore
	Steps []Step
	Files map[string][]File `json:"-"` // by context, in the order of their paths

	written []byte // what was read, for a record that was
}

// Step of a Dockerfile: an instruction that makes a layer.
type Step struct {
	Stage string // its name, or stage-N
	Index int    // in the stage, from 1, which is FROM
	Line  int
	Text  string // as the Dockerfile has it

	Base    string   `json:",omitempty"` // the stage that FROM continues
	Image   string   `json:",omitempty"` // or the image, by its whole name
	From    []string `json:",omitempty"` // stages and contexts that it takes files of; "" is the context
	Sources []string `json:",omitempty"` // what it takes of contexts
	Inputs  []Input  `json:",omitempty"`
}

// Input is a thing that a step depends on, besides files and the step before it.
type Input struct {
	Kind  Kind
	Name  string
	Value string
	Line  int `json:",omitempty"` // where the Dockerfile says so
}

// Kind of an input.
type Kind string

const (
	KindArg    Kind = "build argument"
	KindEnv    Kind = "ENV"
	KindUser   Kind = "USER"
	KindShell  Kind = "SHELL"
	KindImage  Kind = "image"
	KindOption Kind = "option"
)

// ID is how BuildKit calls a step, without its platform.
func (s *Step) ID() string { return s.Stage + " " + strconv.Itoa(s.Index) }

// File of a context.
type File struct {
	Path   string
	Mode   uint32
	Size   int64
	Time   int64 // when it changed, in nanoseconds
	Target string
	Hash   string // of what is in it, in hex; "" where it is not known
}

// same tells whether two looks at a file saw the same, without reading it.
func (f *File) same(g *File) bool {
	return f.Mode == g.Mode && f.Size == g.Size && f.Time == g.Time && f.Target == g.Target
}
