package event

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
)

func TestPastAndNewEventsComeInOrder(t *testing.T) {
	b := New()
	begin := time.Now()
	b.Publish(events.ContainerEventType, "create", "1", nil)
	b.Publish(events.ContainerEventType, "start", "1", nil)
	stop := errors.New("enough")
	var got []events.Action
	go func() {
		time.Sleep(10 * time.Millisecond)
		b.Publish(events.ContainerEventType, "die", "1", nil)
	}()
	err := b.Subscribe(t.Context(), begin, time.Time{}, func(m events.Message) error {
		if got = append(got, m.Action); len(got) == 3 {
			return stop
		}
		return nil
	})
	if err != stop || got[0] != "create" || got[1] != "start" || got[2] != "die" {
		t.Fatalf("%v: %v", err, got)
	}
}

func TestUntilEndsASubscription(t *testing.T) {
	b := New()
	b.Publish(events.ContainerEventType, "create", "1", nil)
	n := 0
	if err := b.Subscribe(t.Context(), time.Now().Add(-time.Hour), time.Now(), func(events.Message) error { n++; return nil }); err != nil || n != 1 {
		t.Fatalf("%v, %d events", err, n)
	}
}

func TestASlowSubscriberIsTold(t *testing.T) {
	b := New()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	ready := make(chan struct{})
	go func() {
		<-ready
		b.Publish(events.ContainerEventType, "first", "1", nil)
	}()
	time.AfterFunc(20*time.Millisecond, func() { close(ready) })
	err := b.Subscribe(ctx, time.Time{}, time.Time{}, func(events.Message) error {
		for range 2 * kept {
			b.Publish(events.ContainerEventType, "more", "1", nil)
		}
		return nil
	})
	if !errdefs.IsDataLoss(err) {
		t.Fatal(err)
	}
}
