package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/client"
)

const (
	rejoinTimeout = 10 * time.Second
	noticeAfter   = time.Second / 2 // an engine that is replaced is there again by then
	replayMost    = 16 << 20        // bytes of output that the log surely still has
)

var errNeverStarted = errors.New("the engine went away before it was started: start it with wherry start -a, or remove it")

// rejoin joins a container again when the engine has come back: it was replaced, or it fell and somebody started it. The container went on
// meanwhile. Its log is read from the beginning, and what was printed already is left out.
func (r *runner) rejoin(ctx context.Context, j joined) (joined, error) {
	c, err := r.app.Client()
	if err != nil {
		return j, err
	}
	c.DoNotStart() // whoever stopped the engine may have meant it
	gone := &exitError{125, fmt.Errorf("container %s: %w", shortID(j.id), errEngineGone)}
	deadline, notice := time.Now().Add(rejoinTimeout), time.Now().Add(noticeAfter)
	for pause := 20 * time.Millisecond; time.Now().Before(deadline); pause = min(2*pause, time.Second/2) {
		again, err := r.joinAgain(ctx, c, j)
		switch {
		case err == nil:
			return again, nil
		case client.IsNotFound(err): // it ended meanwhile, and --rm took it away
			return j, r.lastWords(ctx, c, j)
		case client.Status(err) != 0 || errors.Is(err, errNeverStarted):
			return j, &exitError{125, err}
		}
		if !notice.IsZero() && time.Now().After(notice) {
			notice = time.Time{}
			fmt.Fprintf(r.app.Err, "wherry: the engine has gone, and container %s goes on: waiting %s for the engine to come back\n", shortID(j.id), rejoinTimeout)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return j, gone
		}
	}
	return j, gone
}

func (r *runner) joinAgain(ctx context.Context, c *client.Client, j joined) (joined, error) {
	condition := container.WaitConditionNotRunning
	if r.remove {
		condition = container.WaitConditionRemoved
	}
	about, err := inspectContainer(ctx, c, j.id)
	if err != nil {
		return j, err
	}
	if about.State.Status == container.StateCreated {
		return j, fmt.Errorf("container %s: %w", shortID(j.id), errNeverStarted)
	}
	if j.wait, err = armWait(ctx, c, j.id, condition); err != nil {
		return j, err
	}
	running := about.State.Running
	if j.streams, err = r.replay(ctx, c, j, about); err != nil {
		j.wait.close()
		return j, err
	}
	// An attach to a container that has just ended would wait for its next life.
	if about, err = inspectContainer(ctx, c, j.id); running && err == nil && !about.State.Running {
		j.streams.Close()
		j.streams, err = r.replay(ctx, c, j, about)
	}
	if err != nil {
		j.wait.close()
	}
	return j, err
}

// replay attaches to the log from its beginning, where that is still there.
func (r *runner) replay(ctx context.Context, c *client.Client, j joined, about container.InspectResponse) (*client.Hijacked, error) {
	s := j.session
	q := attachQuery(j.config)
	q.Set("stream", strconv.Itoa(btoi(about.State.Running)))
	log := about.HostConfig.LogConfig
	s.out.skip, s.err.skip = 0, 0
	if log.Type != "none" && log.Config["max-size"] == "" && s.out.printed+s.err.printed < replayMost {
		q.Set("logs", "1")
		s.out.skip, s.err.skip = s.out.printed, s.err.printed
	} else {
		fmt.Fprintln(r.app.Err, "wherry: the engine was away for a moment; wherry logs has what the container printed then")
	}
	return c.Hijack(ctx, client.Request{Path: "/containers/" + j.id + "/attach", Query: q})
}

// lastWords is the exit status of a container that is gone, as the engine's events tell it.
func (r *runner) lastWords(ctx context.Context, c *client.Client, j joined) error {
	q := url.Values{"since": {seconds(j.began)}, "until": {seconds(time.Now())}}
	filters{"container": {j.id: true}, "event": {"die": true}}.into(q)
	var died events.Message
	err := c.Get(ctx, "/events", q, &died)
	code, bad := strconv.Atoi(died.Actor.Attributes["exitCode"])
	switch {
	case err != nil || bad != nil:
		return &exitError{125, fmt.Errorf("container %s ended and was removed while the engine was away: nobody knows its exit status any more", shortID(j.id))}
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}
