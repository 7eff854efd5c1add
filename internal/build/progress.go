package build

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"google.golang.org/protobuf/proto"

	"wherry.dev/wherry/internal/api/docker"
	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/why"
)

// legacyProgress turns BuildKit's progress into the lines of Docker's first builder.
type legacyProgress struct {
	say    func(docker.BuildMessage)
	quiet  bool
	traces bool // BuildKit's own messages are passed on instead

	mu     sync.Mutex // guards what follows
	told   map[string]bool
	cached map[string]bool
	last   time.Time
}

func (p *legacyProgress) stream(format string, args ...any) {
	if !p.quiet {
		p.say(docker.BuildMessage{Stream: fmt.Sprintf(format, args...)})
	}
}

// update is told of vertices and output as they come.
func (p *legacyProgress) update(r *controlapi.StatusResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
	if p.traces {
		if b, err := proto.Marshal(r); err == nil {
			p.say(docker.BuildMessage{ID: "moby.buildkit.trace", Aux: b})
		}
		return
	}
	if p.told == nil {
		p.told, p.cached = map[string]bool{}, map[string]bool{}
	}
	for _, v := range r.Vertexes {
		number, text, ok := stepOf(v.Name)
		if !ok || v.Started == nil {
			continue
		}
		if !p.told[v.Digest] {
			p.told[v.Digest] = true
			p.stream("Step %s : %s\n", number, text)
		}
		if v.Cached && !p.cached[v.Digest] {
			p.cached[v.Digest] = true
			p.stream(" ---> Using cache\n")
		}
	}
	for _, l := range r.Logs {
		if l.Stream == 2 {
			p.stream("\x1b[91m%s\x1b[0m", l.Msg) // red, as Docker's first builder tells errors apart
		} else {
			p.stream("%s", l.Msg)
		}
	}
	for _, w := range r.Warnings {
		p.stream("[Warning] %s\n", w.Short)
	}
}

// stepOf reads "[build 2/5] RUN make".
func stepOf(name string) (number, text string, ok bool) {
	rest, ok := strings.CutPrefix(name, "[")
	if !ok {
		return "", "", false
	}
	head, text, ok := strings.Cut(rest, "] ")
	if !ok {
		return "", "", false
	}
	fields := strings.Fields(head)
	if len(fields) == 0 {
		return "", "", false
	}
	number = fields[len(fields)-1]
	_, _, has := strings.Cut(number, "/")
	return number, asWritten(text), has
}

// asWritten is a FROM as a Dockerfile has it, which clients look for: without what the name was resolved to.
func asWritten(step string) string {
	name, ok := strings.CutPrefix(step, "FROM ")
	if !ok {
		return step
	}
	short, _, _ := strings.Cut(name, "@")
	r, err := ref.Parse(short)
	if err != nil || !strings.HasPrefix(short, r.Name()) {
		return step
	}
	return "FROM " + r.FamiliarName() + strings.TrimSuffix(strings.TrimPrefix(short, r.Name()), ":latest")
}

// settle lets the last messages of a build that has failed come, and ends the stream.
func (p *legacyProgress) settle(followed *sync.WaitGroup, stop func()) {
	done := make(chan struct{})
	go func() { followed.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		stop()
		<-done
	}
}

// end says what was built.
func (p *legacyProgress) end(id string, q docker.BuildRequest) {
	if id == "" {
		return
	}
	switch {
	case p.traces:
		p.say(docker.BuildMessage{ID: "moby.image.id", Aux: map[string]string{"ID": id}})
		return
	case p.quiet:
		p.say(docker.BuildMessage{Stream: id + "\n"})
		return
	}
	p.say(docker.BuildMessage{Aux: map[string]string{"ID": id}})
	p.stream("Successfully built %.12s\n", strings.TrimPrefix(id, "sha256:"))
	for _, t := range q.Tags {
		if r, err := ref.Parse(t); err == nil {
			t = r.Familiar()
		}
		p.stream("Successfully tagged %s\n", t)
	}
}

// stepFailed is a RUN that failed, in the words of Docker's first builder; its clients end with the code.
type stepFailed struct {
	error
	code int
}

func (s *stepFailed) ExitCode() int { return s.code }

func (s *stepFailed) Unwrap() error { return s.error }

// explain says of a step that failed what Docker's first builder says.
func (p *legacyProgress) explain(err error) error {
	if strings.HasPrefix(err.Error(), "dockerfile parse error") { // a text, since the parser's errors have no class
		return fmt.Errorf("%v: %w", err, errInvalid)
	}
	var exit *gatewayapi.ExitError
	if !errors.As(err, &exit) || exit.ExitCode == 0 || exit.ExitCode >= gatewayapi.UnknownExitStatus {
		return err
	}
	failed := &stepFailed{error: err, code: int(exit.ExitCode)}
	_, rest, ok := strings.Cut(err.Error(), `process "`)
	if quoted, quotedErr := strconv.QuotedPrefix(`"` + rest); ok && quotedErr == nil {
		if command, wrong := strconv.Unquote(quoted); wrong == nil {
			failed.error = fmt.Errorf("The command '%s' returned a non-zero code: %d%s", command, failed.code, why.Step(err)) //nolint:staticcheck // Docker's words
		}
	}
	return failed
}
