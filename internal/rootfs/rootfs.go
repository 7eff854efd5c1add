// Package rootfs mounts a container's root file system: an overlay of read-only layers and a writable directory, detached, by descriptor.
package rootfs

import (
	"os"
)

// IDMap is the range of host ids that a container's user namespace has: ids 0..Size-1 inside are Base..Base+Size-1 on the host.
// The zero value means the host's own user namespace (no mapping).
type IDMap struct {
	Base uint32 `json:"base,omitempty"`
	Size uint32 `json:"size,omitempty"`
}

// Rootfs names the directories of an overlay. It is plain data: it goes over the wire to the shim.
type Rootfs struct {
	Lower    []string `json:"lower"`              // absolute paths, topmost layer first
	Upper    string   `json:"upper,omitempty"`    // empty: a read-only view of the layers
	Work     string   `json:"work,omitempty"`     // on the same file system as Upper
	IDMap    IDMap    `json:"idMap,omitzero"`     // layers are id-mapped into this range; Upper's files carry host ids of the range
	Volatile bool     `json:"volatile,omitempty"` // overlay's "volatile": no syncs, for disposable data
	ReadOnly bool     `json:"readOnly,omitempty"`
}

// Mount makes the overlay as a detached mount (fsopen, fsmount) and returns its descriptor.
func (r *Rootfs) Mount() (*os.File, error) { panic("not written yet") }
