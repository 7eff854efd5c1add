package shim

import (
	"encoding/json"
	"fmt"
	"testing"
)

// TestEndsAreKeptUntilTheyAreTold: many execs that end before an engine comes to wait for them have their exit codes all the same; what is
// kept for its next life stays bounded.
func TestEndsAreKeptUntilTheyAreTold(t *testing.T) {
	x := execs{byID: map[string]*execution{}}
	client := &Conn{}
	run := func(i int) string {
		id := fmt.Sprint("exec ", i)
		e := &execution{note: json.RawMessage("{}"), done: make(chan struct{})}
		x.add(id, e, client, nil)
		x.end(id, e, Exit{Code: i})
		return id
	}
	const many = 5 * execsKept
	var ids []string
	for i := range many {
		ids = append(ids, run(i))
	}
	for i, id := range ids {
		r, _, err := x.ask(Request{Method: MethodExecWait, Exec: id})
		if err != nil || r.Exit.Code != i {
			t.Fatalf("%s: %+v, %v", id, r.Exit, err)
		}
		x.tell(id)
	}
	if len(x.byID) != execsKept || len(x.ended) != execsKept || x.find(ids[many-1]) == nil {
		t.Errorf("%d execs are kept, %d have ended", len(x.byID), len(x.ended))
	}
	for i := range 2 * untoldKept {
		run(many + i)
	}
	if len(x.byID) > untoldKept || len(x.ended) != len(x.byID) {
		t.Errorf("%d execs that nobody waits for are kept, %d have ended", len(x.byID), len(x.ended))
	}
}
