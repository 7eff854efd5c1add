package container

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestStatusAllPairs(t *testing.T) {
	all := []Status{Created, Running, Paused, Restarting, Removing, Exited, Dead}
	allowed := map[[2]Status]bool{
		{Created, Running}: true, {Created, Removing}: true,
		{Running, Paused}: true, {Running, Restarting}: true, {Running, Exited}: true,
		{Paused, Running}: true, {Paused, Restarting}: true, {Paused, Exited}: true,
		{Restarting, Running}: true, {Restarting, Exited}: true, {Restarting, Removing}: true,
		{Exited, Running}: true, {Exited, Restarting}: true, {Exited, Removing}: true,
		{Removing, Dead}: true, {Dead, Removing}: true,
	}
	for _, from := range all {
		for _, to := range all {
			got, err := from.To(to)
			switch {
			case allowed[[2]Status{from, to}] && (err != nil || got != to):
				t.Errorf("%s to %s: %s, %v", from, to, got, err)
			case !allowed[[2]Status{from, to}] && (!errdefs.IsConflict(err) || got != from):
				t.Errorf("%s to %s is let through: %s, %v", from, to, got, err)
			}
		}
		if alive := from == Running || from == Paused; from.Alive() != alive {
			t.Errorf("%s: Alive is %v", from, from.Alive())
		}
	}
}
