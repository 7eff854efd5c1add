package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/client"
)

const (
	earlierCPU = `{"cpu_usage":{"total_usage":1000000000},"system_cpu_usage":50000000000,"online_cpus":2}`
	laterCPU   = `{"cpu_usage":{"total_usage":1750000000},"system_cpu_usage":52000000000,"online_cpus":2}`
)

func statsAnswer(now, before string) string {
	return `{"id":"` + fakeID + `","name":"/web","read":"2026-01-01T00:00:02Z","preread":"2026-01-01T00:00:01Z","cpu_stats":` + now + `,"precpu_stats":` + before + `,
		"memory_stats":{"usage":41943040,"limit":268435456,"stats":{"inactive_file":10485760,"anon":5}},"pids_stats":{"current":7},
		"networks":{"eth0":{"rx_bytes":1234567,"tx_bytes":890},"eth1":{"rx_bytes":1000,"tx_bytes":10}},
		"blkio_stats":{"io_service_bytes_recursive":[{"op":"read","value":4096},{"op":"Write","value":1000000},{"op":"Read","value":1}]}}`
}

// statsEngine says the earlier counts first and the later ones from then on; to Docker's client, which asks once, the later ones.
func statsEngine() http.Handler {
	asked := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		w.Header().Set("Ostype", "linux")
		switch {
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			fmt.Fprint(w, `[{"Id":"`+fakeID+`","Names":["/web"],"State":"running"}]`)
		case strings.HasSuffix(r.URL.Path, "/stats") && r.URL.Query().Get("one-shot") == "1" && asked == 0:
			asked++
			fmt.Fprint(w, statsAnswer(earlierCPU, `{}`))
		case strings.HasSuffix(r.URL.Path, "/stats"):
			fmt.Fprint(w, statsAnswer(laterCPU, earlierCPU))
		default:
			fmt.Fprint(w, "{}")
		}
	})
}

func TestStatsLookLikeDockers(t *testing.T) {
	for _, format := range []string{"", "json", "table {{.Name}}\t{{.CPUPerc}}", "{{.ID}} {{.Container}} {{.NetIO}} {{.BlockIO}} {{.PIDs}} {{.MemUsage}} {{.MemPerc}}"} {
		for _, names := range [][]string{nil, {"web"}} {
			t.Run(format+strings.Join(names, ""), func(t *testing.T) {
				t.Parallel()
				args := append([]string{"stats", "--no-stream", "--format", format}, names...)
				want := docker(t, serveOn(t, statsEngine()), args...)
				got, stderr, status := wherry(t, serveOn(t, statsEngine()), args...)
				if got != want || status != 0 {
					t.Errorf("status %d, %s; we print\n%s\nDocker prints\n%s", status, stderr, got, want)
				}
			})
		}
	}
}

func TestStatsOfWhatDoesNotRun(t *testing.T) {
	row := newStatsRow(fakeID, container.StatsResponse{ID: fakeID, Name: "/x"}, container.StatsResponse{}, true)
	if row.ID != "0123456789ab" || row.Container != row.ID || row.CPUPerc != "0.00%" || row.MemUsage != "0B / 0B" || row.PIDs != "0" {
		t.Errorf("%+v", row)
	}
}

// TestStatsOfMemory: what it is for, where that is asked for.
func TestStatsOfMemory(t *testing.T) {
	host := serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"id":%q,"name":"/web","memory_stats":{"usage":6291456,"stats":{"wherry_anonymous":1048576,"wherry_file":2097152,"wherry_shmem":3145728}}}`, fakeID)
	}))
	for _, args := range [][]string{{"--memory"}, {"--format", "{{.MemAnon}} {{.MemFile}} {{.MemShmem}}"}, {"--memory", "--format", "json"}} {
		stdout, stderr, status := wherryWith(t, nil, append(append([]string{"--host", host, "stats", "--no-stream"}, args...), "web")...)
		for _, want := range []string{"1MiB", "2MiB", "3MiB"} {
			if status != 0 || !strings.Contains(stdout, want) {
				t.Errorf("%q: %d %s %s", args, status, stdout, stderr)
			}
		}
	}
}

// TestStatsFollowsWhatComesAndGoes: without names, each look asks anew who runs.
func TestStatsFollowsWhatComesAndGoes(t *testing.T) {
	list := `[{"Id":"a"},{"Id":"b"}]`
	host := serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/containers/json":
			fmt.Fprint(w, list)
		case "/containers/gone/stats":
			http.Error(w, `{"message":"No such container: gone"}`, http.StatusNotFound)
		default:
			fmt.Fprintf(w, `{"id":%q,"name":%[1]q}`, strings.Split(r.URL.Path, "/")[2])
		}
	}))
	c, err := client.New(host)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := statsLayout(false).parseRows("{{.Name}}", false)
	if err != nil {
		t.Fatal(err)
	}
	w := &statsWatch{client: c, last: map[string]container.StatsResponse{}}
	for _, step := range []struct{ list, want string }{
		{`[{"Id":"a"},{"Id":"b"}]`, "a\nb\n"}, {`[{"Id":"b"},{"Id":"gone"},{"Id":"c"}]`, "b\nc\n"}, {`[]`, ""},
	} {
		list = step.list
		var out bytes.Buffer
		if err := w.look(t.Context(), &out, rows); err != nil || out.String() != step.want {
			t.Errorf("%s: %q, %v", step.list, out.String(), err)
		}
	}
	w.names = []string{"gone"}
	if err := w.look(t.Context(), io.Discard, rows); err == nil || err.Error() != "No such container: gone" {
		t.Errorf("a container that was named and is not there: %v", err)
	}
}
