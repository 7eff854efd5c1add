package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// underInit puts `oar init` above an engine that is the first process of its pid namespace, as in an image whose command it is: somebody has to reap
// what loses its parent, such as processes of containers with --pid=host, and an engine has no children but those that it knows.
func underInit(oar string) error {
	if os.Getpid() != 1 || os.Getenv("LISTEN_PID") != "" {
		return nil
	}
	self, err := os.Executable()
	if err == nil {
		err = unix.Exec(oar, append([]string{"oar", "init", "--", self}, os.Args[1:]...), os.Environ())
	}
	return fmt.Errorf("start again as a child of oar init: %w", err)
}
