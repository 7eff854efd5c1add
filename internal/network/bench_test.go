package network

import (
	"testing"

	"github.com/moby/moby/api/types/network"
)

// BenchmarkStart is what a start waits for: addresses, a port, interfaces, rules. The container's namespace is made outside.
func BenchmarkStart(b *testing.B) {
	for _, row := range []struct {
		name  string
		r     AllocateRequest
		named bool
	}{
		{"bridge", AllocateRequest{}, false},
		{"published", AllocateRequest{Ports: portMap("||80/tcp")}, false},
		{"user-defined", AllocateRequest{}, true},
	} {
		b.Run(row.name, func(b *testing.B) {
			s := open(b)
			on := "bridge"
			if row.named {
				on = mustCreate(b, s, network.CreateRequest{Name: "one"})
			}
			for b.Loop() {
				b.StopTimer()
				box := newBox(b)
				row.r.ContainerID, row.r.Name, row.r.Networks = box.id, box.id[:6], map[string]*network.EndpointSettings{on: {}}
				b.StartTimer()
				if _, err := s.Allocate(b.Context(), row.r); err != nil {
					b.Fatal(err)
				}
				if err := s.Attach(b.Context(), box.id, box.netns); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				box.release(s)
				s.later.drain()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkRelease is what the end of a container waits for.
func BenchmarkRelease(b *testing.B) {
	s := open(b)
	for b.Loop() {
		b.StopTimer()
		box := newBox(b)
		box.attach(s, AllocateRequest{Ports: portMap("||80/tcp")})
		b.StartTimer()
		box.release(s)
		b.StopTimer()
		s.later.drain()
		b.StartTimer()
	}
}
