package buildclient

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"golang.org/x/term"

	"wherry.dev/wherry/internal/explain"
)

// watcher shows what the engine tells of a build, and keeps of it what is wanted at its end.
type watcher struct {
	display progressui.Display
	warned  []client.VertexWarning // what was said of the Dockerfile, when it is over
	order   []*step
	steps   map[digest.Digest]*step
	hushed  chan chan struct{} // who asks for silence is told when it is there
	over    chan struct{}      // closed when nothing more comes
	output  map[digest.Digest]*escapes
	colours bool // of programs are shown
	raw     bool // what is told is for a program, as it comes
}

// step is a vertex of BuildKit's graph, as it was told of last.
type step struct {
	client.Vertex
	tail []byte // the end of what it printed
}

// keepOutput of each step is so long.
const keepOutput = 8 << 10

func newWatcher(out io.Writer, mode string, question bool) (*watcher, error) {
	w := &watcher{steps: map[digest.Digest]*step{}, hushed: make(chan chan struct{}), over: make(chan struct{}), output: map[digest.Digest]*escapes{},
		raw: mode == string(progressui.RawJSONMode)}
	if f, ok := out.(*os.File); ok {
		w.colours = term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	}
	if question && (mode == "auto" || mode == "tty") {
		mode = "quiet" // the answer is what is asked for
	}
	var err error
	w.display, err = progressui.NewDisplay(out, progressui.DisplayMode(mode))
	if err != nil {
		err = fmt.Errorf("show progress as --progress=%s: %w", mode, err)
	}
	return w, err
}

// follow reads until the channel is closed.
func (w *watcher) follow(ctx context.Context, from <-chan *client.SolveStatus) error {
	shown := make(chan *client.SolveStatus)
	done := make(chan error, 1)
	go func() {
		var err error
		w.warned, err = w.display.UpdateFrom(ctx, shown)
		for range shown { // after an error nobody may be kept waiting
		}
		done <- err
	}()
	silent := false
	silence := func() (err error) {
		if !silent {
			silent = true
			close(shown)
			err = <-done
		}
		return err
	}
	defer close(w.over)
	for {
		select {
		case s, ok := <-from:
			if !ok {
				return silence()
			}
			if !w.raw {
				w.clean(s)
			}
			w.note(s)
			if !silent {
				shown <- s
			}
		case told := <-w.hushed:
			_ = silence()
			close(told)
		}
	}
}

// warnings prints what a check of the Dockerfile has found, a line each.
func (w *watcher) warnings(out io.Writer) {
	n := "1 warning"
	switch {
	case len(w.warned) == 0:
		return
	case len(w.warned) > 1:
		n = strconv.Itoa(len(w.warned)) + " warnings"
	}
	fmt.Fprintf(out, "\n%s found (wherry build --check explains them):\n", n)
	for _, v := range w.warned {
		fmt.Fprintf(out, " - %s\n", v.Short)
	}
}

// hush ends what is shown, for somebody else to have the terminal. It returns when the last line is written.
func (w *watcher) hush() {
	told := make(chan struct{})
	select {
	case w.hushed <- told:
		<-told
	case <-w.over:
	}
}

func (w *watcher) note(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		known := w.steps[v.Digest]
		if known == nil {
			known = &step{}
			w.steps[v.Digest] = known
			w.order = append(w.order, known)
		}
		cause := known.Error
		known.Vertex = *v
		if canceled(v.Error) && cause != "" {
			known.Error = cause // what ends a build cancels the step that failed, too
		}
	}
	for _, l := range s.Logs {
		if known := w.steps[l.Vertex]; known != nil {
			known.tail = append(known.tail, l.Data...)
			if n := len(known.tail); n > 2*keepOutput {
				known.tail = append(known.tail[:0], known.tail[n-keepOutput:]...)
			}
		}
	}
}

func canceled(text string) bool { return strings.Contains(text, context.Canceled.Error()) }

// failed is the step that ended the build, nil where none did.
func (w *watcher) failed() *step {
	for _, s := range w.order {
		if s.Error != "" && !canceled(s.Error) {
			return s
		}
	}
	return nil
}

// seen are the steps that ran or did not have to.
func (w *watcher) seen() []explain.Seen {
	var out []explain.Seen
	for _, s := range w.order {
		if s.Started == nil && !s.Cached || canceled(s.Error) {
			continue
		}
		v := explain.Seen{Name: s.Name, Cached: s.Cached, Failed: s.Error != ""}
		if s.Started != nil && s.Completed != nil {
			v.Took = s.Completed.Sub(*s.Started)
		}
		out = append(out, v)
	}
	return out
}
