package container

import "time"

// Named is a container as others speak of it.
type Named struct {
	ID, Name, Owner string
	Restarts        int
	Started         time.Time // zero: never
}

// NameOf finds a container by its name, its id, or the beginning of its id.
func NameOf(s *Service, ref string) (Named, error) {
	c, err := s.index.find(ref)
	if err != nil {
		return Named{}, err
	}
	r := c.record()
	return Named{ID: c.id, Name: r.Name, Owner: r.Owner, Restarts: r.RestartCount, Started: r.StartedAt}, nil
}
