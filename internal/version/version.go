// Package version says which Wherry this is.
package version

// Version is set by the linker (see the Makefile); "dev" in builds without it.
var Version = "dev"

// The Engine API versions that the engine speaks, newest and oldest.
const (
	API    = "1.56"
	MinAPI = "1.24"
)
