package container

import (
	"context"
	"fmt"
)

// parties are the containers, old and new, of replacements that an earlier life of the engine did not finish: nobody else starts or removes
// them. It gives the new ones.
func (x *index) parties(all []*Container) (news []*Container, party map[string]bool) {
	party = map[string]bool{}
	for _, c := range all {
		if note := c.record().Replaces; note != nil {
			news = append(news, c)
			party[c.id], party[note.Old] = true, true
		}
	}
	return news, party
}

// takeUp goes on with a replacement of an earlier life.
func takeUp(ctx context.Context, s *Service, c *Container) {
	note := c.record().Replaces
	if c.isGone() || note == nil {
		return
	}
	n := &replacing{s: s, o: ReplaceOptions{}.withDefaults(), new: c, name: note.Name}
	if old, err := s.index.find(note.Old); err == nil {
		n.old = old
	}
	n.settle(ctx)
}

// settle finishes a replacement of an earlier life, or takes it back.
func (n *replacing) settle(ctx context.Context) {
	note := n.new.record().Replaces
	newAlive, oldThere := n.new.record().Status.Alive(), n.old != nil
	oldAlive := oldThere && n.old.record().Status.Alive()
	switch {
	case oldThere && (!note.Switched || oldAlive && !newAlive && note.AutoStart):
		n.s.log(n.revert(ctx, fmt.Errorf("the replacement of container %s was cut short: the old one stays", n.name)))
		life{n.s, n.old}.resume(ctx)
		return
	case oldThere:
		n.old.op.Lock()
		n.new.op.Lock()
		n.s.log(n.hand(n.old, n.new))
		n.s.log(n.swapNames(n.old, n.new, n.aside()))
		n.new.op.Unlock()
		n.old.op.Unlock()
		if err := n.finish(ctx); err != nil {
			n.s.log(fmt.Errorf("finish the replacement of container %s: %w", n.name, err))
			return
		}
	default:
		_, err := n.new.change(true, func(r *Record) error {
			r.Replaces = nil
			return nil
		})
		n.s.log(err)
	}
	life{n.s, n.new}.resume(ctx)
}
