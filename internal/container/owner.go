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

// OfUser is the id of the container whose own ids a user of the host is among; "": there is none.
func OfUser(s *Service, uid uint32) string {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	for id, c := range s.index.byID {
		if r := c.record(); r.OwnRange && uid >= r.IDMap.Base && uid-r.IDMap.Base < r.IDMap.Size {
			return id
		}
	}
	return ""
}
