package test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"wherry.dev/wherry/internal/contract"
	"wherry.dev/wherry/internal/version"
)

// ledger gathers what all clients asked of all engines, held against Docker's specification. A run in which anything differs has failed.
type ledger struct {
	spec *contract.Specification

	mu       sync.Mutex
	seen     map[string]int
	problems map[contract.Problem]int
	errs     error
}

func newLedger() (*ledger, error) {
	spec, err := contract.Open(version.API)
	if err != nil {
		return nil, err
	}
	return &ledger{spec: spec, seen: map[string]int{}, problems: map[contract.Problem]int{}}, nil
}

// record puts a recorder in front of an engine's socket: that of the clients.
func (l *ledger) record(e *engine) error {
	_ = os.Remove(e.front())
	var err error
	e.recorder, err = contract.Record(l.spec, e.front(), e.socket())
	return err
}

// close ends an engine's recorder; clients find that nobody listens any more, as they would without it.
func (l *ledger) close(e *engine) {
	if e.recorder == nil {
		return
	}
	seen, problems, err := e.recorder.Close()
	e.recorder = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	for operation, n := range seen {
		l.seen[operation] += n
	}
	for p, n := range problems {
		if e.foreign && (strings.HasPrefix(p.At, "query ") || strings.HasPrefix(p.At, "request")) {
			continue
		}
		l.problems[p] += n
	}
	l.errs = errors.Join(l.errs, err)
}

// verdict is an error where anything differed. It says what of the API was never asked for.
func (l *ledger) verdict() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := l.spec.Operations()
	if err != nil {
		return err
	}
	asked := 0
	for _, n := range l.seen {
		asked += n
	}
	slices.Sort(all)
	never := slices.DeleteFunc(all, func(operation string) bool { return l.seen[operation] > 0 })
	fmt.Fprintf(os.Stderr, "contract: %d exchanges of %d operations were held against Docker's specification; not asked for: %s\n",
		asked, len(l.seen), strings.Join(never, ", "))
	var lines []string
	for p, n := range maps.All(l.problems) {
		lines = append(lines, fmt.Sprintf("%s (%d times)", p, n))
	}
	slices.Sort(lines)
	if len(lines) > 0 {
		l.errs = errors.Join(l.errs, fmt.Errorf("answers or requests that Docker's specification does not have:\n%s", strings.Join(lines, "\n")))
	}
	return l.errs
}

// front is where clients find the engine: its recorder's socket.
func (e *engine) front() string { return filepath.Join(e.dir, "clients.sock") }
