// Package ext stands for Traefik's package of this name, a module inside its module that no proxy has. It is where other programs put more
// kinds of settings; there are none here.
package ext

// HTTP, Router and Service have nothing to add to their namesakes.
type (
	HTTP    struct{}
	Router  struct{}
	Service struct{}
)
