package container

// Replacement is noted in the record of a container that is taking another one's place.
type Replacement struct {
	Old string // its id
}
