package access

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Share is how many bytes of names, labels, environments and what else the engine holds in memory of containers a client may fill that has rights to its
// own alone; as many of networks, and of volumes.
const Share = 64 << 20

// Afford refuses to such a client what its share is too small for: have is what it has, more what it asks for.
func (s Scope) Afford(what string, have, more int) error {
	if !s.Limited || have+more <= Share {
		return nil
	}
	return fmt.Errorf("what describes your %s (labels, environments and the like) would take %d MiB of the engine's memory, and may take %d: remove some, or describe them more shortly: %w",
		what, (have+more)>>20, Share>>20, errdefs.ErrPermissionDenied)
}

// Weight is what texts take, roughly.
func Weight(texts ...map[string]string) (n int) {
	for _, m := range texts {
		for k, v := range m {
			n += len(k) + len(v)
		}
	}
	return n
}
