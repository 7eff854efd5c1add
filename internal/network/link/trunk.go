package link

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Trunk is a veth pair that makes two bridges of one namespace one link.
type Trunk struct {
	Upper, Lower  string // names of the ends
	Bridge, Annex int    // numbers of the bridges that they are on
	MTU           int
	Isolated      bool     // the upper end is: isolated ends beyond do not reach those of the upper bridge
	Home          *os.File // the namespace
}

// Ensure makes the trunk, or mends the one that is there.
func (t Trunk) Ensure(c *Conn) error {
	upper := Pair{Host: t.Upper, Inside: t.Lower, Bridge: t.Bridge, Namespace: t.Home, MTU: t.MTU, Isolated: t.Isolated}
	if err := upper.Add(c); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	lower := Pair{Host: t.Lower, Bridge: t.Annex}
	err := c.Do(lower.plug(true))
	if errors.Is(err, unix.EAFNOSUPPORT) {
		err = c.Do(lower.plug(false))
	}
	return err
}
