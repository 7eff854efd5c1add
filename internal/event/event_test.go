package event

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
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

func TestSlowSubscriberIsToldAndStopsNobody(t *testing.T) {
	b := New()
	publish(b, "first")
	n := 0
	err := b.Subscribe(t.Context(), time.Unix(1, 0), time.Time{}, func(events.Message) error {
		if n == 0 {
			for range queue + 1 {
				publish(b, "x")
			}
		}
		n++
		return nil
	})
	if !errdefs.IsResourceExhausted(err) || n != queue+1 {
		t.Fatal(n, err)
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
