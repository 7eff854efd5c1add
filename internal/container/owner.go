package container

// Named is a container as others speak of it.
type Named struct{ ID, Name, Owner string }

// NameOf finds a container by its name, its id, or the beginning of its id.
func NameOf(s *Service, ref string) (Named, error) {
	c, err := s.index.find(ref)
	if err != nil {
		return Named{}, err
	}
	return Named{ID: c.id, Name: c.record().Name, Owner: c.record().Owner}, nil
}
