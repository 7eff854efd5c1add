// Package trust holds images against the policy file: it reads the policy again when it changes, fetches signatures from registries, and has
// them judged by wherry-verify, a process without network, files and rights.
//
// A Checker keeps the policy in memory, and nothing on disk: what is worth keeping of an answer is its caller's to keep. Safe for many
// goroutines.
package trust

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/policy"
)

// Options of New.
type Options struct {
	Policy string // the policy file; "": policy.Path, or else policy.FieldsPath, where there is one
	Helper string // path of wherry-verify
	Empty  string // a directory that stays empty: all that the helper sees of the file system; it is made when needed
}

// Checker holds images against the policy.
type Checker struct {
	o       Options
	places  []string      // where the policy may be: the first that is there counts
	helpers chan struct{} // a place for each helper that may run

	mu     sync.Mutex // guards what follows
	policy *policy.Policy
	err    error
	stamps []stamp // of what policy, or err, was read from
}

// stamp is what tells that a file, or a link to one, has changed.
type stamp struct {
	path     string
	link     bool // of the path itself, if it is one
	dev, ino uint64
	size     int64
	at       [2]syscall.Timespec
}

// New makes a checker; nothing is read yet.
func New(o Options) *Checker {
	c := &Checker{o: o, places: []string{policy.Path, policy.FieldsPath}, helpers: make(chan struct{}, 2)}
	if o.Policy != "" {
		c.places = []string{o.Policy}
	}
	return c
}

// stampOf is zero but for the path where there is nothing.
func stampOf(path string, link bool) stamp {
	stat := os.Stat
	if link {
		stat = os.Lstat
	}
	info, err := stat(path)
	if err != nil {
		return stamp{path: path, link: link}
	}
	return stampFrom(path, link, info)
}

func stampFrom(path string, link bool, info os.FileInfo) stamp {
	s := stamp{path: path, link: link}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino, s.size, s.at = uint64(st.Dev), st.Ino, st.Size, [2]syscall.Timespec{st.Mtim, st.Ctim}
	}
	return s
}

// Policy is the policy as it stands now; nil, nil where there is none. It costs a stat for each file that it was read from. One that
// cannot be read is an error, and never the one before.
func (c *Checker) Policy() (*policy.Policy, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stamps != nil && c.unchanged() {
		return c.policy, c.err
	}
	c.policy, c.err, c.stamps = nil, nil, nil
	for _, path := range c.places {
		c.stamps = append(c.stamps, stampOf(path, true)) // before it is read: what changes meanwhile is read again
	}
	for _, path := range c.places {
		_, err := os.Lstat(path) // a link that leads nowhere is no reason to accept everything
		if errors.Is(err, os.ErrNotExist) && c.o.Policy == "" {
			continue
		}
		p, err := policy.Read(path)
		if err != nil {
			c.err = &UnreadError{err}
			c.stamps = nil // also of files that it names nothing is known: read it again when it is asked for
			return nil, c.err
		}
		c.policy = p
		for _, f := range p.Files {
			c.stamps = append(c.stamps, stampFrom(f.Path, false, f.Info))
		}
		break
	}
	return c.policy, nil
}

func (c *Checker) unchanged() bool {
	for _, s := range c.stamps {
		if stampOf(s.path, s.link) != s {
			return false
		}
	}
	return true
}

// UnreadError is why there is a policy, and it cannot be followed. It is of the class errdefs.ErrPermissionDenied.
type UnreadError struct{ err error }

func (e *UnreadError) Error() string {
	return fmt.Sprintf("the policy cannot be followed, so nothing is pulled or run until it is mended: %v", e.err)
}

// Unwrap gives the class and the cause.
func (e *UnreadError) Unwrap() []error { return []error{errdefs.ErrPermissionDenied, e.err} }

// Refusal is why an image is neither pulled nor run. It is of the class errdefs.ErrPermissionDenied.
type Refusal struct {
	Image string
	Rule  *policy.Rule
	Why   string // "" where the rule says it all
	Err   error  // why it could not be found out; nil: it was
}

// Error says which image, which rule, where it stands, why, and what can be done.
func (r *Refusal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "image %s is refused by %s in %s: ", r.Image, r.Rule.Name(), r.Rule.Where())
	switch {
	case r.Rule.Action == policy.Signed:
		var who []string
		for _, s := range r.Rule.Signers {
			who = append(who, s.String())
		}
		fmt.Fprintf(&b, "it has to be signed (%s)", strings.Join(who, "; "))
		if len(r.Rule.Signers) > 1 {
			fmt.Fprintf(&b, ", by %d of these", r.Rule.Need)
		}
		if r.Err != nil {
			fmt.Fprintf(&b, ", and whether it is could not be found out: %v", r.Err)
			break
		}
		fmt.Fprintf(&b, ", and %s: have it signed, or change the rule", r.Why)
	case r.Why != "":
		b.WriteString(r.Why)
	default:
		b.WriteString("it says \"reject\"; change the rule if the image is meant to be used")
	}
	return b.String()
}

// Unwrap gives the class, and not Err: its class is about a registry, or the machine.
func (r *Refusal) Unwrap() error { return errdefs.ErrPermissionDenied }
