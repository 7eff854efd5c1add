package logs

import (
	"testing"
	"time"
)

// TestPace: a program that prints without a pause is let gather its output; one that pauses is not kept waiting.
func TestPace(t *testing.T) {
	var p Pace
	now := time.Now()
	after := func(d time.Duration) bool {
		now = now.Add(d)
		return p.Fast(now)
	}
	for i := range quickReads {
		if after(quick) {
			t.Fatalf("fast after %d reads", i)
		}
	}
	for range 1000 { // each at once after the wait
		if !after(quick) {
			t.Fatal("not fast any more, without a pause")
		}
		now = now.Add(3 * time.Millisecond)
		p.Waited(now)
	}
	if after(quick + time.Microsecond) {
		t.Error("fast after a pause")
	}
	for i := range quickReads * 10 {
		if after(time.Millisecond) {
			t.Fatalf("fast after %d slow reads", i)
		}
	}
}
