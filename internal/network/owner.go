package network

// Named is a network as others speak of it.
type Named struct{ ID, Name string }

// NameOf finds a network by its name, its id, or the beginning of its id.
func NameOf(s *Service, ref string) (Named, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return Named{}, err
	}
	return Named{ID: n.ID, Name: n.Name}, nil
}
