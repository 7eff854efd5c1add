package cli

import (
	"strings"
	"testing"
	"time"

	"wherry.dev/wherry/internal/why"
)

func TestHealthText(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, row := range []struct {
		columns              int
		status, output, want string
	}{
		{0, "Up 3 seconds (unhealthy)", "no answer", "Up 3 seconds (unhealthy)"},
		{139, "Up 3 seconds (unhealthy)", "no answer", "Up 3 seconds (unhealthy)"},
		{200, "Up 3 seconds (unhealthy)", "no answer", "Up 3 seconds (unhealthy: no answer)"},
		{200, "Up 3 seconds (health: starting)", "no answer", "Up 3 seconds (health: starting: no answer)"},
		{200, "Up 3 seconds (unhealthy)", "", "Up 3 seconds (unhealthy)"},
		{200, "Exited (1) 3 seconds ago", "no answer", "Exited (1) 3 seconds ago"},
		{200, "Up (unhealthy)", "\x1b[31mred", "Up (unhealthy: [31mred)"},
		{140, "Up (unhealthy)", long, "Up (unhealthy: " + strings.Repeat("x", 29) + "…)"},
	} {
		if got := healthText(row.columns, row.status, row.output); got != row.want {
			t.Errorf("%d columns, %s, %.20s: %q", row.columns, row.status, row.output, got)
		}
	}
}

func TestWhyText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	death := func(n int) why.Death {
		return why.Death{Verdict: why.Verdict{Cause: why.Failed, Summary: "it failed", Facts: []string{"a fact"}, Advice: "mend it"},
			Evidence: why.Evidence{Ended: at.Add(-time.Duration(n) * time.Hour), Lines: []string{"1", "2", "3", "4", "5", "6"}}}
	}
	r := why.Report{Name: "web", Status: "exited", Verdict: death(0).Verdict, Loop: &why.Loop{Restarts: 7, Lives: 3, Short: time.Second, Long: 2 * time.Second, NextAfter: time.Minute}}
	for n := range 6 {
		r.Deaths = append(r.Deaths, death(n))
	}
	want := `web: it failed
  in a restart loop: restarted 7 times, it lives 1s to 2s each time; the last wait before a start was 1m0s
  - a fact
  its last output:
    | 2
    | 3
    | 4
    | 5
    | 6
  what to do: mend it

Before that:
  2026-01-02 02:04:05  error              it failed
  2026-01-02 01:04:05  error              it failed
  2026-01-02 00:04:05  error              it failed
  and 2 more: wherry why --all
`
	if got := whyText(r, false); got != want {
		t.Errorf("%s", got)
	}
	if got := whyText(r, true); strings.Count(got, "a fact") != 6 || strings.Contains(got, "--all") {
		t.Errorf("%s", got)
	}
	r = why.Report{Name: "new", Verdict: why.Verdict{Cause: why.Created, Summary: "it was never started", Advice: "start it"}}
	if got := whyText(r, false); got != "new: it was never started\n  what to do: start it\n" {
		t.Errorf("%q", got)
	}
}
