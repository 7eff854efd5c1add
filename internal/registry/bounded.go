package registry

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// maxParts is how many elements and members all lists and objects of a manifest, index or config may have. Empty ones are three bytes each, and
// take a hundred times that in memory.
const maxParts = 250_000

// Bounded says that a document does not have more of them than that. Its syntax is not looked at.
func Bounded(b []byte) error {
	parts, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '{' || c == '['):
			parts++
		}
	}
	if parts > maxParts {
		return fmt.Errorf("it has more than %d parts: %w", maxParts, errdefs.ErrInvalidArgument)
	}
	return nil
}
