// Package metrics tells Prometheus what containers use and what the engine does.
//
// A Collector writes one page in the text format. It keeps the last one for a second, and makes one at a time: however often and by however many it is
// asked for, a page of a thousand containers costs their counters once a second. Nothing is counted on behalf of containers while nobody asks.
// Safe for many goroutines.
package metrics

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/monitor"
)

// Containers is what this package asks of the containers.
type Containers interface {
	List(context.Context, containers.ListOptions) ([]container.Summary, error)
}

// Sampler counts what a container uses.
type Sampler interface {
	Sample(ctx context.Context, id string) (monitor.Sample, error)
}

// Counts are of the engine. Those that are nil are left out.
type Counts struct {
	Images, Volumes, Networks func(context.Context) (int, error)
	LostEvents                func() uint64
	Audit                     func() (records, lost uint64)
	Life                      func(id string) (restarts int, started time.Time)
	Timings                   *Timings  // nil: those of the collector itself
	Started                   time.Time // when the engine was
}

// ContentType of a page.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

const fresh = time.Second

// Collector makes pages.
type Collector struct {
	*Timings

	containers Containers
	sampler    Sampler
	counts     Counts

	making sync.Mutex // one page at a time
	last   []byte
	made   time.Time
}

// New returns a collector.
func New(c Containers, s Sampler, counts Counts) *Collector {
	if counts.Timings == nil {
		counts.Timings = &Timings{}
	}
	return &Collector{Timings: counts.Timings, containers: c, sampler: s, counts: counts}
}

// Page is the newest page, a second old at most when it is begun.
func (c *Collector) Page(ctx context.Context) ([]byte, error) {
	c.making.Lock()
	defer c.making.Unlock()
	if c.last != nil && time.Since(c.made) < fresh {
		return c.last, nil
	}
	var p page
	if err := c.writeEngine(ctx, &p); err != nil {
		return nil, err
	}
	if err := c.writeContainers(ctx, &p); err != nil {
		return nil, err
	}
	c.write(&p)
	c.last, c.made = p.b.Bytes(), time.Now()
	return c.last, nil
}

// ServeHTTP answers GET /metrics, for a listener that has nothing else.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/metrics":
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "there is GET /metrics", http.StatusMethodNotAllowed)
	default:
		page, err := c.Page(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", ContentType)
		_, _ = w.Write(page)
	}
}
