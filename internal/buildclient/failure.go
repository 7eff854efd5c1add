package buildclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	solver "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"wherry.dev/wherry/internal/why"
)

// interrupted is the exit status of a program that was told to end by a key.
const interrupted = 130

// failure makes of a failed build what a person needs: what went wrong, where in which file, and what to do. The exit status is that of the
// command that failed.
func (j *job) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil || grpcerrors.Code(err) == codes.Canceled {
		return &ExitError{Code: interrupted, Cause: errors.New("the build was interrupted; nothing is left of it but cache")}
	}
	var text strings.Builder
	code := 1
	var exit *gatewaypb.ExitError
	failed := j.watch.failed()
	switch {
	case errors.As(err, &exit) && exit.ExitCode != gatewaypb.UnknownExitStatus && failed != nil:
		code = int(exit.ExitCode)
		j.printTail(failed)
		fmt.Fprintf(&text, "%s: exit status %d%s", failed.Name, code, why.Step(err))
	case failed != nil && isNotFound(err):
		name, _ := notFound(err.Error())
		fmt.Fprintf(&text, `%s: "/%s" is not there`, failed.Name, name)
	default:
		text.WriteString(plain(err).Error())
	}
	about := text.String()
	if exit != nil {
		about = "" // the whole command: what is quoted in it is no name
	}
	for _, s := range solver.Sources(err) {
		if e := excerpt(s, about); e != "" {
			text.WriteString("\n" + e)
		}
	}
	if hint := j.missing(err, failed); hint != "" {
		text.WriteString("\n" + hint)
	}
	return &ExitError{Code: code, Cause: errors.New(text.String())}
}

// printTail shows what a failed step printed last, where the way of showing progress does not do so.
func (j *job) printTail(s *step) {
	if mode := j.o.ProgressMode(); mode != "quiet" && mode != "rawjson" {
		return
	}
	fmt.Fprint(j.c.Err, lastLines(s.tail))
}

// lastLines are ten at most, "" of a program that has printed nothing.
func lastLines(tail []byte) string {
	tail = bytes.TrimRight(tail, "\n")
	if len(tail) == 0 {
		return ""
	}
	lines := bytes.Split(tail, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n"))) + "\n"
}

// plain is an error without the words that the ways it came by put before it.
func plain(err error) error {
	text := err.Error()
	for _, word := range []string{"failed to solve: ", "listing workers for Build: ", "failed to run Build function: "} {
		text = strings.TrimPrefix(text, word)
	}
	for strings.HasPrefix(text, "rpc error: code = ") {
		_, rest, ok := strings.Cut(text, " desc = ")
		if !ok {
			break
		}
		text = rest
	}
	text = withoutInner(strings.TrimPrefix(text, "dockerfile parse error on "))
	if strings.Contains(text, "no SSH key ") {
		text += ": --ssh default lends an agent's keys, --ssh default=FILE a key"
	}
	return &plainError{text: text, err: err}
}

// withoutInner takes away what BuildKit says of its own steps in the middle of an error: the lines of the Dockerfile stand below it.
func withoutInner(text string) string {
	for _, words := range []string{"failed to load cache key: ", "failed to read downloaded context: "} {
		text = strings.ReplaceAll(text, words, "")
	}
	before, after, ok := strings.Cut(text, "failed to resolve source metadata for ")
	if _, cause, has := strings.Cut(after, ": "); ok && has {
		text = before + cause
		if strings.HasPrefix(cause, "pull ") && !strings.Contains(strings.TrimSpace(before), " ") { // it names the image itself
			text = cause
		}
	}
	return text
}

type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// around so many lines stand before and behind those that are meant.
const around = 2

// excerpt shows the lines that an error is about, and a caret below the word in them that it is about.
func excerpt(s *solver.Source, message string) string {
	if s.Info == nil || len(s.Ranges) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(s.Info.Data), "\n"), "\n")
	first, last := len(lines)+1, 0
	for _, r := range s.Ranges {
		first = min(first, int(r.Start.Line))
		last = max(last, int(r.Start.Line), int(r.End.Line))
	}
	last = min(last, len(lines))
	if first < 1 || first > last {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n", s.Info.Filename, first)
	pointed := false
	for n := max(1, first-around); n <= min(len(lines), last+around); n++ {
		line := strings.ReplaceAll(strings.TrimRight(lines[n-1], "\r"), "\t", "    ")
		mark := " "
		if n >= first && n <= last {
			mark = ">"
		}
		fmt.Fprintf(&b, "%s %3d | %s\n", mark, n, line)
		if at, width := pointAt(line, message); mark == ">" && !pointed && (at >= 0 || n == last) {
			fmt.Fprintf(&b, "      | %s%s\n", strings.Repeat(" ", max(at, indent(line))), strings.Repeat("^", max(1, width)))
			pointed = true
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// pointAt finds the word of a line that a message names: what it quotes, or what stands behind its last colon. -1 is nowhere.
func pointAt(line, message string) (at, width int) {
	var words []string
	for i, part := range strings.Split(message, `"`) {
		if i%2 == 1 {
			words = append(words, part, strings.TrimPrefix(part, "/"))
		}
	}
	for _, after := range []string{"unknown instruction: ", "unknown flag: ", "invalid argument: "} {
		if _, rest, ok := strings.Cut(message, after); ok {
			word, _, _ := strings.Cut(rest, " ")
			word, _, _ = strings.Cut(word, "\n")
			words = append(words, "--"+strings.TrimLeft(word, "-"), word)
		}
	}
	if rest, ok := strings.CutPrefix(message, "pull "); ok {
		name, _, _ := strings.Cut(rest, ": ")
		words = append(words, name, strings.TrimSuffix(name, ":latest"))
	}
	line = sourcesOf(line)
	for _, w := range words {
		if at := wordIn(line, w); at >= 0 {
			return at, len(w)
		}
	}
	return -1, 0
}

// sourcesOf is a line without where it copies to: that is made, and never missing.
func sourcesOf(line string) string {
	trimmed := strings.TrimRight(line, " ")
	fields := strings.Fields(trimmed)
	if len(fields) < 3 || !strings.EqualFold(fields[0], "COPY") && !strings.EqualFold(fields[0], "ADD") || strings.HasSuffix(trimmed, `\`) {
		return line
	}
	return trimmed[:strings.LastIndex(trimmed, " ")]
}

// wordIn finds text in a line, rather as a word of its own than inside another one.
func wordIn(line, text string) int {
	if text == "" {
		return -1
	}
	line, text = strings.ToLower(line), strings.ToLower(text)
	if at := strings.Index(line+" ", " "+text+" "); at >= 0 {
		return at + 1
	}
	return strings.Index(line, text)
}
