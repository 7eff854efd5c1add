// Package verify judges signatures: who made them, of which image, under which name.
//
// It links the libraries of sigstore and of the Notary Project, and runs in a process of its own, wherry-verify, which has no network, no files
// and no rights (Confine): what strangers send is read there and not in the engine. It opens nothing; all that it needs is in the request.
package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"wherry.dev/wherry/internal/evidence"
)

// Main answers the question on in.
func Main(ctx context.Context, in io.Reader, out io.Writer) error {
	var q evidence.Request
	d := json.NewDecoder(io.LimitReader(in, evidence.MaxRequest))
	if err := d.Decode(&q); err != nil {
		return fmt.Errorf("read the question: %w", err)
	}
	return json.NewEncoder(out).Encode(Judge(ctx, &q))
}

// Judge looks for a signature of each signer.
func Judge(ctx context.Context, q *evidence.Request) evidence.Answer {
	a := evidence.Answer{Findings: []evidence.Finding{}}
	for i := range q.Signers {
		a.Findings = append(a.Findings, judge(ctx, q, &q.Signers[i]))
	}
	return a
}

// verdict of one signature.
type verdict struct {
	by    string
	until time.Time // zero: for ever
}

// question is about one image.
type question struct {
	*evidence.Request
	img *evidence.Image
}

// checker tells a signer's signatures from others.
type checker interface {
	kinds() []evidence.Kind
	check(ctx context.Context, q question, s *evidence.Signature) (verdict, error)
}

func judge(ctx context.Context, q *evidence.Request, s *evidence.Signer) evidence.Finding {
	c, err := newChecker(s)
	if err != nil {
		return evidence.Finding{Why: printable(err.Error())}
	}
	worst := errors.New("there is no signature")
	best := evidence.Finding{}
	for i := range q.Images {
		img := &q.Images[i]
		for j := range img.Signatures {
			v, err := try(ctx, c, question{q, img}, &img.Signatures[j])
			if err != nil {
				if rank(err) >= rank(worst) {
					worst = err
				}
				continue
			}
			if !best.OK || later(v.until, best.Until) {
				best = evidence.Finding{OK: true, By: printable(v.by), Until: v.until, Image: i, Signature: j}
			}
		}
	}
	if !best.OK {
		best.Why = printable(worst.Error())
	}
	return best
}

// later says whether a ends after b; the zero time never ends.
func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

func try(ctx context.Context, c checker, q question, s *evidence.Signature) (verdict, error) {
	for _, k := range c.kinds() {
		if k == s.Kind {
			return c.check(ctx, q, s)
		}
	}
	return verdict{}, &fault{rankOther, fmt.Errorf("there are only signatures of another format")}
}

func newChecker(s *evidence.Signer) (checker, error) {
	if s.Format == evidence.FormatNotation {
		return newNotary(s)
	}
	if len(s.Keys) > 0 {
		return newKeyed(s)
	}
	return newKeyless(s)
}

// Ranks of faults: of many signatures, people are told of the one that came nearest.
const (
	rankNone = iota
	rankOther
	rankMalformed
	rankStranger // by somebody else
	rankDigest   // by the right one, of other content
	rankName     // for another name
	rankExpired
)

// fault is why a signature does not count.
type fault struct {
	rank int
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func faultf(rank int, format string, args ...any) error {
	return &fault{rank, fmt.Errorf(format, args...)}
}

func rank(err error) int {
	var f *fault
	if errors.As(err, &f) {
		return f.rank
	}
	return rankNone
}

// printable keeps what strangers wrote from being more than a line of text.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 300 {
		return string(r[:300]) + "…"
	}
	return s
}
