package sysprog

import "testing"

// BenchmarkUserNamespace is what a container without namespaces made ahead waits for.
func BenchmarkUserNamespace(b *testing.B) {
	if err := Protect(); err != nil {
		b.Fatal(err)
	}
	maps := []Mapping{{Inside: 0, Outside: 1 << 29, Count: 65536}}
	for b.Loop() {
		f, err := UserNamespace(maps, maps)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
