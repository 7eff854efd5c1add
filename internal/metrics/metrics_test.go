package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/monitor"
)

// many are containers that are only said to be there.
type many struct {
	n       int
	sampled atomic.Int64
}

func (m *many) List(context.Context, containers.ListOptions) ([]container.Summary, error) {
	out := make([]container.Summary, m.n)
	for i := range out {
		out[i] = container.Summary{ID: fmt.Sprintf("%064x", i), Names: []string{fmt.Sprintf("/c%d", i)}, Image: "img", State: container.StateRunning,
			Health: &container.HealthSummary{Status: container.Healthy}}
	}
	if m.n > 1 {
		out[1].State, out[1].Image = container.StateExited, "bad \"name\"\\\n\xff"
	}
	return out, nil
}

func (m *many) Sample(_ context.Context, id string) (monitor.Sample, error) {
	m.sampled.Add(1)
	if strings.HasSuffix(id, "2") {
		return monitor.Sample{}, errors.New("it has just ended")
	}
	s := monitor.Sample{Split: monitor.Split{Anonymous: 10, File: 20, Shmem: 30}, Swap: 5, OOMKills: 2}
	s.CPUStats.CPUUsage = container.CPUUsage{TotalUsage: 3e9, UsageInUsermode: 2e9, UsageInKernelmode: 1e9}
	s.MemoryStats.Usage, s.MemoryStats.Limit = 60, 100
	s.Networks = map[string]container.NetworkStats{"eth0": {RxBytes: 7, TxBytes: 8}, "eth1": {RxBytes: 9}}
	s.BlkioStats.IoServiceBytesRecursive = []container.BlkioStatEntry{{Major: 8, Minor: 1, Op: "read", Value: 11}, {Major: 8, Minor: 1, Op: "Write", Value: 12}}
	s.Operations = []container.BlkioStatEntry{{Major: 8, Minor: 1, Op: "Read", Value: 1}}
	return s, nil
}

func parse(t *testing.T, page []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatalf("%v\n%s", err, page)
	}
	return families
}

func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return float64(m.GetHistogram().GetSampleCount())
}

func find(t *testing.T, f map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	if f[name] == nil {
		t.Errorf("%s is missing", name)
		return -1
	}
next:
	for _, m := range f[name].Metric {
		has := map[string]string{}
		for _, l := range m.Label {
			has[l.GetName()] = l.GetValue()
		}
		for i := 0; i < len(labels); i += 2 {
			if has[labels[i]] != labels[i+1] {
				continue next
			}
		}
		return value(m)
	}
	t.Errorf("%s has no sample with %q", name, labels)
	return -1
}

func TestPage(t *testing.T) {
	m := &many{n: 4}
	c := New(m, m, Counts{
		Images:     func(context.Context) (int, error) { return 3, nil },
		LostEvents: func() uint64 { return 17 }, Audit: func() (uint64, uint64) { return 5, 1 },
		Life: func(string) (int, time.Time) { return 2, time.Unix(1000, 0) }, Started: time.Unix(500, 0),
	})
	c.Request("GET", "/containers/json", 200, 2*time.Millisecond)
	c.Request("BREW", "/containers/json", 405, time.Minute)
	c.Step("clone", 700*time.Microsecond)
	page, err := c.Page(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := parse(t, page)
	for name, want := range map[string]float64{
		"wherry_images": 3, "wherry_engine_events_lost_total": 17, "wherry_engine_audit_records_total": 5, "wherry_engine_audit_lost_records_total": 1,
		"process_start_time_seconds": 500, "wherry_engine_info": 1,
	} {
		if got := find(t, f, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]float64{
		"cpu_seconds_total": 3, "cpu_user_seconds_total": 2, "cpu_system_seconds_total": 1, "memory_usage_bytes": 60, "memory_limit_bytes": 100, "memory_anonymous_bytes": 10,
		"memory_file_bytes": 20, "memory_shmem_bytes": 30, "memory_swap_bytes": 5, "oom_kills_total": 2, "restarts_total": 2, "start_time_seconds": 1000,
	} {
		if got := find(t, f, "wherry_container_"+name, "name", "c0", "image", "img", "id", fmt.Sprintf("%064x", 0)); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, row := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"wherry_containers", []string{"state", "running"}, 3}, {"wherry_containers", []string{"state", "exited"}, 1}, {"wherry_containers", []string{"state", "dead"}, 0},
		{"wherry_container_state", []string{"name", "c1", "state", "exited", "image", "bad \"name\"\\\n\uFFFD"}, 1}, {"wherry_container_health", []string{"name", "c0", "health", "healthy"}, 1},
		{"wherry_container_network_receive_bytes_total", []string{"name", "c0", "interface", "eth1"}, 9}, {"wherry_container_network_transmit_bytes_total", []string{"interface", "eth0"}, 8},
		{"wherry_container_block_read_bytes_total", []string{"device", "8:1"}, 11}, {"wherry_container_block_write_bytes_total", []string{"device", "8:1"}, 12},
		{"wherry_container_block_read_operations_total", []string{"device", "8:1"}, 1},
		{"wherry_engine_requests_total", []string{"method", "GET", "route", "/containers/json", "code", "200"}, 1}, {"wherry_engine_requests_total", []string{"method", "other"}, 1},
		{"wherry_engine_request_duration_seconds", []string{"method", "other"}, 1}, {"wherry_engine_start_step_duration_seconds", []string{"step", "clone"}, 1},
	} {
		if got := find(t, f, row.name, row.labels...); got != row.want {
			t.Errorf("%s %q is %v, want %v", row.name, row.labels, got, row.want)
		}
	}
	if n := len(f["wherry_container_cpu_seconds_total"].Metric); n != 2 { // one has ended before, one just now
		t.Errorf("%d containers use the processor", n)
	}
	for name, family := range f { // Prometheus' conventions
		if family.GetHelp() == "" || (family.GetType() == dto.MetricType_COUNTER) != strings.HasSuffix(name, "_total") {
			t.Errorf("%s: %s, help %q", name, family.GetType(), family.GetHelp())
		}
	}
}

// TestOnePageForAll: a thousand containers are looked at once, whoever asks how often.
func TestOnePageForAll(t *testing.T) {
	m := &many{n: 1000}
	c := New(m, m, Counts{})
	asked := make(chan error)
	for range 20 {
		go func() {
			page, err := c.Page(context.WithoutCancel(t.Context()))
			if err == nil && len(page) < 100_000 {
				err = fmt.Errorf("%d bytes", len(page))
			}
			asked <- err
		}()
	}
	for range 20 {
		if err := <-asked; err != nil {
			t.Error(err)
		}
	}
	// A machine that is very busy may need longer than a second for all of them.
	if n := m.sampled.Load(); n > 3*999 {
		t.Errorf("%d samples for 20 pages of 999 containers that run", n)
	}
	parse(t, c.last)
	c.made = time.Time{}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Page(ended); err == nil {
		t.Error("a client that has gone is worked for")
	}
}

func TestServeHTTP(t *testing.T) {
	m := &many{n: 1}
	c := New(m, m, Counts{})
	for target, want := range map[string]int{"GET /metrics": 200, "HEAD /metrics": 200, "POST /metrics": 405, "GET /": 404, "GET /containers/json": 404} {
		method, path, _ := strings.Cut(target, " ")
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != want || want == 200 && w.Header().Get("Content-Type") != ContentType {
			t.Errorf("%s: %d %v", target, w.Code, w.Header())
		}
	}
}
