package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// bounds of the buckets of times, in seconds.
var bounds = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

// timing is a histogram.
type timing struct {
	buckets [len(bounds) + 1]uint64
	sum     float64
}

func (t *timing) add(d time.Duration) {
	s := d.Seconds()
	i, _ := slices.BinarySearch(bounds[:], s)
	t.buckets[i]++
	t.sum += s
}

func (t *timing) write(p *page, name string, labels ...string) {
	total := uint64(0)
	for i, n := range t.buckets {
		total += n
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		p.sample(name+"_bucket", float64(total), append(labels[:len(labels):len(labels)], "le", le)...)
	}
	p.sample(name+"_sum", t.sum, labels...)
	p.sample(name+"_count", float64(total), labels...)
}

// answer is what requests are counted by: routes are those of the engine's table, so that nobody makes new ones.
type answer struct {
	method, route string
	code          int
}

// Timings count requests and the steps of starts. The zero value is ready; safe for many goroutines.
type Timings struct {
	mu       sync.Mutex
	requests map[answer]uint64
	methods  map[string]*timing
	steps    map[string]*timing
}

// Request notes an answer, and the time until it began.
func (t *Timings) Request(method, route string, code int, took time.Duration) {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE":
	default:
		method = "other"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests == nil {
		t.requests, t.methods = map[answer]uint64{}, map[string]*timing{}
	}
	t.requests[answer{method, route, code}]++
	if t.methods[method] == nil {
		t.methods[method] = &timing{}
	}
	t.methods[method].add(took)
}

// Step notes how long a named step of a start took.
func (t *Timings) Step(name string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.steps == nil {
		t.steps = map[string]*timing{}
	}
	if t.steps[name] == nil {
		t.steps[name] = &timing{}
	}
	t.steps[name].add(took)
}

func (t *Timings) write(p *page) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.family("wherry_engine_requests_total", counter, "Requests that were answered, by route.")
	keys := slices.SortedFunc(maps.Keys(t.requests), func(a, b answer) int {
		return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.method, b.method), cmp.Compare(a.code, b.code))
	})
	for _, k := range keys {
		p.sample("wherry_engine_requests_total", float64(t.requests[k]), "method", k.method, "route", k.route, "code", strconv.Itoa(k.code))
	}
	p.family("wherry_engine_request_duration_seconds", histogram, "Time until an answer began.")
	for _, m := range slices.Sorted(maps.Keys(t.methods)) {
		t.methods[m].write(p, "wherry_engine_request_duration_seconds", "method", m)
	}
	p.family("wherry_engine_start_step_duration_seconds", histogram, "Time that the steps of starting containers took.")
	for _, s := range slices.Sorted(maps.Keys(t.steps)) {
		t.steps[s].write(p, "wherry_engine_start_step_duration_seconds", "step", s)
	}
}
