package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
	"golang.org/x/sys/unix"

	containers "wherry.dev/wherry/internal/container"
)

// statusOf is the whole mapping of error classes to HTTP.
func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errdefs.IsNotModified(err):
		return http.StatusNotModified
	case errdefs.IsInvalidArgument(err), errdefs.IsOutOfRange(err):
		return http.StatusBadRequest
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err), errdefs.IsFailedPrecondition(err), errdefs.IsAborted(err):
		return http.StatusConflict
	case errdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// clientGone is the status of what was given up since its client has closed its side: nothing that reads it takes that for done. Proxies use the number so.
const clientGone = 499

// writeError answers with Docker's error body. Once an answer has begun nothing can be said any more.
func writeError(w http.ResponseWriter, err error) {
	if rw, ok := w.(*response); ok {
		if rw.status != 0 {
			failLate(w, err)
			return
		}
		rw.failure = message(err)
	}
	code := statusOf(err)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	if errors.Is(err, context.Canceled) {
		code = clientGone // which may still read: it has only closed its side
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Content-Length")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // people see it
	_ = e.Encode(common.ErrorResponse{Message: message(err)})
}

// message is an error's text without the name of its class, which wrapping a class leaves at the end ("…: not found"): the status code
// says it. Images and containers have their words in some errors, and these end on somebody's terminal: nothing in them moves its cursor.
func message(err error) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, err.Error())
	for _, class := range []error{
		errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrConflict, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition,
		errdefs.ErrUnauthenticated, errdefs.ErrPermissionDenied, errdefs.ErrNotImplemented, errdefs.ErrUnavailable, errdefs.ErrOutOfRange,
		errdefs.ErrAborted, errdefs.ErrInternal,
	} {
		if short, ok := strings.CutSuffix(text, ": "+class.Error()); ok && errors.Is(err, class) {
			return clipped(short + shortage(err))
		}
	}
	return clipped(text + shortage(err))
}

// shortage says what helps where there are no descriptors left: the error itself names the file that had just its turn.
func shortage(err error) string {
	switch {
	case errors.Is(err, errdefs.ErrResourceExhausted): // it says so
	case strings.Contains(err.Error(), containers.MoreFiles): // likewise
	case errors.Is(err, unix.EMFILE) || strings.HasSuffix(err.Error(), unix.EMFILE.Error()): // of a shim, whose limit is the engine's
		return ": the engine has no file descriptor left: " + containers.MoreFiles + " or close connections to it, and try again"
	case errors.Is(err, unix.ENFILE):
		return ": this machine has no file descriptor left (fs.file-max): raise that, or end what holds them, and try again"
	}
	return ""
}

// longestMessage is how much of an error is told: an image's user may have a name of megabytes.
const longestMessage = 8 << 10

func clipped(text string) string {
	if len(text) <= longestMessage {
		return text
	}
	const half = longestMessage / 2
	return strings.ToValidUTF8(text[:half], "") + " … " + strings.ToValidUTF8(text[len(text)-half:], "")
}

// classError is a message with a class whose own text is not shown.
type classError struct {
	message string
	class   error
}

func (e *classError) Error() string { return e.message }
func (e *classError) Unwrap() error { return e.class }

func classed(class error, format string, args ...any) error {
	return &classError{message: fmt.Sprintf(format, args...), class: class}
}

func invalid(format string, args ...any) error {
	return classed(errdefs.ErrInvalidArgument, format, args...)
}
