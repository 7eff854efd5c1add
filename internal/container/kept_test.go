package container

import "testing"

// TestKept: what is measured while something changes is not kept, and a record's change drops what is.
func TestKept(t *testing.T) {
	var k Kept
	measured := 0
	of := func(during func()) int64 {
		n, err := k.Of("x", func() (int64, error) {
			measured++
			during()
			return int64(measured), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	nothing := func() {}
	if of(k.Forget); of(nothing) != 2 || of(nothing) != 2 {
		t.Errorf("measured %d times", measured)
	}
	if k.Forget(); of(nothing) != 3 {
		t.Error("kept beyond a change")
	}

	e := newEngine(t)
	id := e.create(request{name: "box", cmd: sh("sleep 3600")})
	kept := func() *Kept {
		m, err := MeasuredOf(e.Service, id)
		if err != nil {
			t.Fatal(err)
		}
		return m.Kept
	}
	still := kept()
	one := func() int64 {
		n, _ := still.Of("n", func() (int64, error) { measured++; return int64(measured), nil })
		return n
	}
	before := one()
	e.start(id)
	if one() == before {
		t.Error("a start changes nothing")
	}
	if kept() != nil {
		t.Error("kept of one that runs")
	}
}
