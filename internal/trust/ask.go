package trust

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"wherry.dev/wherry/internal/evidence"
	"wherry.dev/wherry/internal/policy"
)

// patience is how long the helper may take for one image.
const patience = 30 * time.Second

// Outcome is whether enough of a rule's signers have signed.
type Outcome struct {
	OK    bool
	By    []string  // who did
	Why   string    // not OK: what is wrong
	Until time.Time // when it has to be asked again; zero: never
	Good  [][2]int  // which of the request's images, and of its signatures, counted
}

// Ask has the signatures of q.Images judged by a rule. An error means that they could not be.
func (c *Checker) Ask(ctx context.Context, rule *policy.Rule, q evidence.Request) (Outcome, error) {
	any := false
	for _, img := range q.Images {
		any = any || len(img.Signatures) > 0
	}
	if !any { // no process is needed to see that
		return Outcome{Why: errNone.Error()}, nil
	}
	q.Signers = rule.Signers
	a, err := c.run(ctx, q)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return Outcome{}, fmt.Errorf("wherry-verify, which judges signatures, cannot be started: %w: put it beside wherryd, or name it by `engine.verify` in the settings", err)
	case err != nil:
		return Outcome{}, fmt.Errorf("judge the signatures of %s: %w: try again", q.Name, err)
	}
	if a.Error != "" || len(a.Findings) != len(q.Signers) {
		return Outcome{}, fmt.Errorf("judge the signatures of %s: wherry-verify: %q", q.Name, a.Error)
	}
	for _, f := range a.Findings {
		if f.OK && (f.Image < 0 || f.Image >= len(q.Images) || f.Signature < 0 || f.Signature >= len(q.Images[f.Image].Signatures)) {
			return Outcome{}, fmt.Errorf("judge the signatures of %s: wherry-verify found one that it was not asked for", q.Name)
		}
	}
	return count(rule, a), nil
}

func count(rule *policy.Rule, a evidence.Answer) Outcome {
	var out Outcome
	var why []string
	for _, f := range a.Findings {
		switch {
		case f.OK:
			out.By, out.Good = append(out.By, f.By), append(out.Good, [2]int{f.Image, f.Signature})
			if !f.Until.IsZero() && (out.Until.IsZero() || f.Until.Before(out.Until)) {
				out.Until = f.Until
			}
		case len(why) == 0 || why[len(why)-1] != f.Why:
			why = append(why, f.Why)
		}
	}
	out.OK = len(out.By) >= rule.Need && rule.Need > 0
	if !out.OK {
		out.Why = strings.Join(why, "; ")
		if len(out.By) > 0 {
			out.Why = fmt.Sprintf("only %d of %d have signed it (%s): %s", len(out.By), rule.Need, strings.Join(out.By, ", "), out.Why)
		}
	}
	return out
}

// run starts the helper for one question. It gets namespaces of its own, with no network in it, no environment, and no file: the rest it
// takes from itself before it reads the question.
func (c *Checker) run(ctx context.Context, q evidence.Request) (a evidence.Answer, err error) {
	select {
	case c.helpers <- struct{}{}:
		defer func() { <-c.helpers }()
	case <-ctx.Done():
		return a, context.Cause(ctx)
	}
	in, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	if err := os.MkdirAll(c.o.Empty, 0o755); err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it took too long"))
	defer cancel()
	cmd := exec.CommandContext(ctx, c.o.Helper)
	out, said := &bounded{most: evidence.MaxAnswer}, &bounded{most: 1 << 12}
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = c.o.Empty, []string{}, bytes.NewReader(in), out, said, time.Second
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID}
	}
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		line, _, _ := strings.Cut(strings.TrimSpace(said.b.String()), "\n")
		return a, fmt.Errorf("%s: %w %q", c.o.Helper, err, line)
	}
	if err := json.Unmarshal(out.b.Bytes(), &a); err != nil {
		return a, fmt.Errorf("%s answers: %w", c.o.Helper, err)
	}
	return a, nil
}

// bounded keeps the first bytes that are written to it, and refuses more.
type bounded struct {
	b    bytes.Buffer
	most int
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > w.most {
		return 0, errors.New("too much")
	}
	return w.b.Write(p)
}
