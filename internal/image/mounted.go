package image

// Mounted sees to it that layers on which a container was made are there, and says where: what Image.Lower was may have been mounted before
// the last boot, or below another directory.
func (s *store) Mounted(lower []string) ([]string, error) {
	here, err := s.mounts.Here(lower)
	if err != nil {
		err = s.layerGone(err)
	}
	return here, err
}

// Unmount unmounts all layers, for one who takes the store away: nothing may use them any more.
func (s *store) Unmount() error { return s.mounts.Release() }
