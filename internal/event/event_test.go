package event

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/access"
)

func publish(b *Bus, id string) {
	b.Publish(events.ContainerEventType, events.ActionStart, id, map[string]string{"name": "n" + id})
}

var errEnough = errors.New("enough")

func TestPastThenNewInOrder(t *testing.T) {
	b := New()
	publish(b, "before")
	since := time.Now()
	for i := range 10 {
		publish(b, strconv.Itoa(i))
	}
	next := 0
	err := b.Subscribe(t.Context(), since, time.Time{}, func(m events.Message) error {
		if m.Actor.ID != strconv.Itoa(next) || m.Actor.Attributes["name"] != "n"+m.Actor.ID || m.Scope != "local" || m.Time != m.TimeNano/1e9 {
			t.Fatalf("event %d is %+v", next, m)
		}
		next++
		if next < 20 {
			publish(b, strconv.Itoa(next+9)) // a subscriber may publish
		} else {
			return errEnough
		}
		return nil
	})
	if err != errEnough {
		t.Fatal(err)
	}
	if len(b.subscribers) != 0 {
		t.Fatal("the subscriber stays")
	}
}

func TestUntil(t *testing.T) {
	b := New()
	publish(b, "a")
	publish(b, "b")
	between := time.Now()
	publish(b, "c")
	var got []string
	collect := func(m events.Message) error { got = append(got, m.Actor.ID); return nil }
	if err := b.Subscribe(t.Context(), time.Unix(1, 0), between, collect); err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	got = nil
	if err := b.Subscribe(t.Context(), time.Time{}, time.Now().Add(20*time.Millisecond), collect); err != nil || len(got) != 0 {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestContextEnds(t *testing.T) {
	b := New()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Subscribe(ctx, time.Time{}, time.Time{}, func(events.Message) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	b := New()
	for i := range kept + 100 {
		publish(b, strconv.Itoa(i))
	}
	next := 100
	err := b.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), func(m events.Message) error {
		if m.Action == ActionLost { // of those that went before
			return nil
		}
		if m.Actor.ID != strconv.Itoa(next) {
			t.Fatalf("%s, want %d", m.Actor.ID, next)
		}
		next++
		return nil
	})
	if err != nil || next != kept+100 {
		t.Fatal(next, err)
	}
}

// TestSlowSubscriberIsToldAndStopsNobody: in the place of what it missed it reads how much that was, and then what comes next.
func TestSlowSubscriberIsToldAndStopsNobody(t *testing.T) {
	b := New()
	publish(b, "first")
	var got []events.Message
	err := b.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, func(m events.Message) error {
		switch got = append(got, m); {
		case len(got) == 1:
			for range queue + 25 {
				publish(b, "x")
			}
		case m.Action == ActionLost:
			publish(b, "after")
		case m.Actor.ID == "after":
			return errEnough
		}
		return nil
	})
	if err != errEnough || len(got) != 1+queue+1+1 {
		t.Fatal(len(got), err)
	}
	lost := got[1+queue]
	if lost.Type != events.DaemonEventType || lost.Actor.Attributes["lost"] != "25" || lost.TimeNano == 0 {
		t.Errorf("%+v", lost)
	}
	from, err := time.Parse(time.RFC3339Nano, lost.Actor.Attributes["from"])
	if err != nil || from.UnixNano() <= got[queue].TimeNano {
		t.Errorf("lost from %v on: %v", from, err)
	}
}

// TestAPastThatIsGone: who asks for more than the ring has is told.
func TestAPastThatIsGone(t *testing.T) {
	b := New()
	publish(b, "old")
	first := time.Now()
	for range kept {
		publish(b, "x")
	}
	for since, want := range map[time.Time]events.Action{time.Unix(1, 0): ActionLost, first: events.ActionStart} {
		var got []events.Message
		if err := b.Subscribe(t.Context(), since, time.Now(), func(m events.Message) error { got = append(got, m); return nil }); err != nil || len(got) < kept || got[0].Action != want {
			t.Errorf("since %v: %d events, %v", since, len(got), err)
		}
	}
}

// TestOwnersHearOfTheirOwn and never see who owns what.
func TestOwnersHearOfTheirOwn(t *testing.T) {
	b := New()
	for _, owner := range []string{"uid:1", "uid:2", ""} {
		b.Publish(events.ContainerEventType, events.ActionStart, owner, map[string]string{access.OwnerAttribute: owner, "a": "b"})
	}
	for scope, want := range map[access.Scope]int{{}: 3, {Owner: "uid:1"}: 3, {Owner: "uid:1", Limited: true}: 1, {Owner: "uid:3", Limited: true}: 0, {Limited: true}: 0} {
		n := 0
		err := b.Subscribe(access.With(t.Context(), scope), time.Unix(1, 0), time.Now(), func(m events.Message) error {
			if n++; len(m.Actor.Attributes) != 1 {
				t.Errorf("%+v", m)
			}
			return nil
		})
		if err != nil || n != want {
			t.Errorf("%+v: %d, want %d: %v", scope, n, want, err)
		}
	}
	ctx := access.With(t.Context(), access.Scope{Owner: "uid:1", Limited: true})
	got := ""
	err := b.Subscribe(ctx, time.Unix(1, 0), time.Time{}, func(m events.Message) error {
		if got += m.Actor.ID + " "; len(got) > 8 {
			return errEnough
		}
		b.Publish(events.ContainerEventType, events.ActionStart, "other", map[string]string{access.OwnerAttribute: "uid:2"})
		b.Publish(events.ContainerEventType, events.ActionStart, "mine", map[string]string{access.OwnerAttribute: "uid:1"})
		return nil
	})
	if err != errEnough || got != "uid:1 mine " {
		t.Errorf("%q %v", got, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	b := New()
	var ready, done sync.WaitGroup
	for range 4 {
		ready.Add(1)
		done.Go(func() {
			n, last := 0, int64(0)
			past := true
			publishMark := func(m events.Message) error {
				if m.Action == ActionLost {
					t.Errorf("%+v", m)
				}
				if past {
					past = false
					ready.Done()
				}
				if m.TimeNano <= last {
					t.Errorf("times go back: %d after %d", m.TimeNano, last)
				}
				last = m.TimeNano
				if m.Actor.ID == "x" {
					n++
				}
				if n == 400 {
					return errEnough
				}
				return nil
			}
			if err := b.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, publishMark); err != errEnough {
				t.Error(err)
			}
		})
	}
	publish(b, "begin")
	ready.Wait()
	for range 4 {
		done.Go(func() {
			for range 100 {
				publish(b, "x")
			}
		})
	}
	done.Wait()
}

// TestEventsAreBoundedInBytes: an image's labels are attributes of each event of its containers, and it may have two hundred thousand.
func TestEventsAreBoundedInBytes(t *testing.T) {
	b := New()
	labels := map[string]string{}
	for i := range 20_000 {
		labels[strconv.Itoa(i)] = "label"
	}
	const many = 100
	var got, lost int
	publish(b, "first")
	err := b.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, func(m events.Message) error {
		switch {
		case m.Actor.ID == "first":
			for range many {
				b.Publish(events.ContainerEventType, events.ActionStart, "big", labels)
			}
		case m.Action == ActionLost:
			lost, _ = strconv.Atoi(m.Actor.Attributes["lost"])
			return errEnough
		default:
			got++
		}
		return nil
	})
	if err != errEnough || got == 0 || got > 20 || got+lost != many {
		t.Errorf("a subscriber that lies behind: %d events came, %d were lost, %v", got, lost, err)
	}
	if len(b.past) == 0 || len(b.past) > 20 || b.bytes > keptBytes {
		t.Errorf("%d events are kept, of %d bytes", len(b.past), b.bytes)
	}
	for range kept {
		publish(b, "small")
	}
	if len(b.past) != kept {
		t.Errorf("after small ones %d are kept", len(b.past))
	}
	b.Publish(events.ContainerEventType, "exec_start: "+events.Action(strings.Repeat("x", keptBytes)), "huge", nil)
	if len(b.past) != 1 || b.past[0].Actor.ID != "huge" {
		t.Errorf("the newest is not kept: %d", len(b.past))
	}
	publish(b, "next")
	if len(b.past) != 1 || b.past[0].Actor.ID != "next" {
		t.Errorf("what is too large stays: %d", len(b.past))
	}
}
