package network

import (
	"fmt"
	"sync"
	"time"

	"wherry.dev/wherry/internal/network/firewall"
	"wherry.dev/wherry/internal/network/link"
)

const (
	checkEvery = 4 * time.Second        // in case a notice was missed
	settle     = 100 * time.Millisecond // those who change rules make several changes
)

// guard notices when somebody else touches the engine's table or stops the host from forwarding, and mends it.
type guard struct {
	fire  *firewall.Table
	log   func(error)
	watch *firewall.Watch
	poke  chan struct{}
	end   chan struct{}
	wg    sync.WaitGroup
}

func newGuard(fire *firewall.Table, log func(error)) (*guard, error) {
	w, err := fire.Watch()
	if err != nil {
		return nil, err
	}
	g := &guard{fire: fire, log: log, watch: w, poke: make(chan struct{}, 1), end: make(chan struct{})}
	g.wg.Go(g.listen)
	g.wg.Go(g.keep)
	return g, nil
}

func (g *guard) close() error {
	close(g.end)
	err := g.watch.Close()
	g.wg.Wait()
	return err
}

func (g *guard) ended() bool {
	select {
	case <-g.end:
		return true
	default:
		return false
	}
}

// listen passes notices on.
func (g *guard) listen() {
	for {
		err := g.watch.Next()
		if g.ended() {
			return
		}
		if err != nil {
			g.log(fmt.Errorf("changes of the firewall by others are only noticed every %s: %w", checkEvery, err))
			return
		}
		select {
		case g.poke <- struct{}{}:
		default:
		}
	}
}

func (g *guard) keep() {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.end:
			return
		case <-tick.C:
			if !g.fire.Whole() {
				g.mend()
			}
			if readSysctl(forward4) != "1" {
				g.report(link.SetSysctl(forward4, "1"))
			}
		case <-g.poke:
			g.mend() // at once: until then there is nothing between others and the containers
			select {
			case <-g.end:
				return
			case <-time.After(settle):
				if !g.fire.Whole() {
					g.mend()
				}
			}
		}
	}
}

func (g *guard) mend() {
	err := g.fire.Swap()
	if err == nil {
		err = fmt.Errorf("the engine's rules in the firewall were changed by another program and are restored")
	}
	g.report(err)
}

func (g *guard) report(err error) {
	if err != nil {
		g.log(err)
	}
}
