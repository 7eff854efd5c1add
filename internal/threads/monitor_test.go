package threads

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestCalmReachesOneOtherThread(t *testing.T) {
	Calm()
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	calm := 0
	for _, e := range list {
		b, err := os.ReadFile("/proc/" + e.Name() + "/timerslack_ns")
		if err == nil && strings.TrimSpace(string(b)) == slack {
			calm++
			if e.Name() == strconv.Itoa(os.Getpid()) {
				t.Error("the main thread's own slack was changed")
			}
		}
	}
	if calm != 1 {
		t.Errorf("%d threads were given the slack, want the monitor alone", calm)
	}
}
