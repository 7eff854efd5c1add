package ociruntime

import (
	"testing"
)

// BenchmarkCreate is the runtime's part of a start, in a process that is warm.
func BenchmarkCreate(b *testing.B) {
	x := newBox(b, "true")
	for b.Loop() {
		c, err := Create(b.Context(), CreateOptions{ID: "box", Spec: x.spec, Rootfs: x.rootfs})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		if _, err := Reap(c.Pidfd()); err != nil {
			b.Fatal(err)
		}
		g := c.Cgroup()
		if err := g.WaitEmpty(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := g.Delete(); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
