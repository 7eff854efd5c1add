package main

import (
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// takeSockets has the container inherit the sockets that a service manager passes to this command, from descriptor 3 on
// (sd_listen_fds(3)): what --preserve-fds counts stands behind them. They are passed to the process that the user has started, whose child this
// one is in a user namespace.
func (o *creation) takeSockets(r *store) {
	passedTo := os.Getpid()
	if r.inside != "" {
		passedTo = os.Getppid()
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); err != nil || n < 1 || pid != strconv.Itoa(passedTo) {
		return
	}
	o.sockets = n
	o.preserve += n
}

// announceSockets tells the program of them, as the first process of its namespace.
func (o *creation) announceSockets(p *specs.Process) {
	if o.sockets > 0 {
		p.Env = append(p.Env, "LISTEN_FDS="+strconv.Itoa(o.sockets), "LISTEN_PID=1")
	}
}
