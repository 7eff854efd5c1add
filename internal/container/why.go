package container

import (
	"fmt"
	"time"

	"wherry.dev/wherry/internal/why"
)

// Why tells why a container has ended, the last times; one that was removed a while ago is still known.
func Why(s *Service, id string) (why.Report, error) {
	c, err := s.index.find(id)
	if err != nil {
		if g, ok := s.graves.find(id); ok {
			report := reportOf(g.record, g.deaths)
			report.Status = "removed"
			return report, nil
		}
		return why.Report{}, err
	}
	report := reportOf(c.record(), deathsOf(c))
	if report.Loop != nil {
		c.mu.Lock()
		report.Loop.NextAfter = c.policy.backoff
		c.mu.Unlock()
	}
	return report, nil
}

func reportOf(r *Record, deaths []why.Evidence) why.Report {
	out := why.Report{ID: r.ID, Name: r.Name, Status: string(r.Status), Deaths: []why.Death{}}
	if e, ok := plainEnd(r, deaths); ok {
		deaths = append(deaths[:len(deaths):len(deaths)], e)
	}
	for i := len(deaths) - 1; i >= 0; i-- {
		out.Deaths = append(out.Deaths, why.Death{Verdict: why.Judge(deaths[i]), Evidence: deaths[i]})
	}
	out.Loop = loopOf(r, deaths)
	switch {
	case r.Status.Alive():
		out.Started = r.StartedAt
		out.Verdict = why.Verdict{Cause: why.Running, Summary: fmt.Sprintf("it runs, for %s now", time.Since(r.StartedAt).Round(time.Second))}
		if r.Status == Paused {
			out.Summary += ", and is paused"
		}
	case len(out.Deaths) > 0:
		out.Verdict = out.Deaths[0].Verdict
	default:
		out.Verdict = why.Verdict{Cause: why.Created, Summary: "it was never started", Advice: "wherry start " + r.Name}
	}
	return out
}

// plainEnd is an end that only the record tells of, as nothing was wrong with it: the last one, where no other follows it.
func plainEnd(r *Record, deaths []why.Evidence) (why.Evidence, bool) {
	if r.Status.Alive() || !r.HasRun || r.FinishedAt.IsZero() || r.ExitCode != 0 {
		return why.Evidence{}, false
	}
	if n := len(deaths); n > 0 && !deaths[n-1].Ended.Before(r.FinishedAt) {
		return why.Evidence{}, false
	}
	return why.Evidence{Started: r.StartedAt, Ended: r.FinishedAt, Program: programOf(r)}, true
}

// loopAfter is from how many restarts in a row on a container is said to be in a loop.
const loopAfter = 2

// loopOf describes a container that its restart policy starts again and again.
func loopOf(r *Record, deaths []why.Evidence) *why.Loop {
	if r.RestartCount < loopAfter || r.Status == Running && time.Since(r.StartedAt) >= steady {
		return nil
	}
	loop := &why.Loop{Restarts: r.RestartCount}
	for _, e := range deaths[max(0, len(deaths)-r.RestartCount-1):] {
		if e.Started.IsZero() {
			continue
		}
		lived := e.Ended.Sub(e.Started)
		if loop.Lives == 0 || lived < loop.Short {
			loop.Short = lived
		}
		loop.Long = max(loop.Long, lived)
		loop.Lives++
	}
	return loop
}
