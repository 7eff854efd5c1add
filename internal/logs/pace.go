package logs

import "time"

// Pace notices what comes without a pause, so that more of it can be let gather. For one goroutine.
type Pace struct {
	last  time.Time // of the last read, or of the end of the wait that followed it
	reads int       // that came quickly after the one before
}

const (
	// quick is the time between two reads without a pause, quickReads how many of them make sure of that.
	quick      = 150 * time.Microsecond
	quickReads = 16
)

// Fast notes a read and says whether to let more come.
func (p *Pace) Fast(now time.Time) bool {
	if now.Sub(p.last) > quick {
		p.reads = 0
	} else if p.reads < quickReads {
		p.reads++
	}
	p.last = now
	return p.reads >= quickReads
}

// Waited notes the end of a wait, which may have been longer than it was meant to be.
func (p *Pace) Waited(now time.Time) { p.last = now }
