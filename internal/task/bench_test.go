package task

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkLife is a whole task: what the engine waits for at a run, by its parts (the lower quartile of each, in microseconds).
func BenchmarkLife(b *testing.B) {
	path := oar(b)
	o := options(b, path, "bench", "true")
	o.Filters = &Filters{}
	o.Shims = OpenShims(path, nil)
	defer o.Shims.Close()
	parts := map[string][]float64{}
	last := time.Now()
	part := func(name string, err error) {
		if err != nil {
			b.Fatal(name, err)
		}
		now := time.Now()
		parts[name] = append(parts[name], float64(now.Sub(last).Microseconds()))
		last = now
	}
	var before unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &before); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		last = time.Now()
		tk, err := Create(b.Context(), o)
		part("create-µs", err)
		part("start-µs", tk.Start(b.Context()))
		_, err = tk.Wait(b.Context())
		part("wait-µs", err)
		part("delete-µs", tk.Delete(b.Context()))
	}
	time.Sleep(100 * time.Millisecond) // the last shim ends
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &usage); err != nil {
		b.Fatal(err)
	}
	runs := float64(len(parts["create-µs"]))
	b.ReportMetric(float64(usage.Utime.Nano()-before.Utime.Nano())/1000/runs, "user-µs")
	b.ReportMetric(float64(usage.Stime.Nano()-before.Stime.Nano())/1000/runs, "system-µs")
	for name, list := range parts {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/4], name)
	}
}
