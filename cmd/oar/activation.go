package main

import (
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// takeSockets has the container inherit the sockets that a service manager passes to this command, from descriptor 3 on
// (sd_listen_fds(3)): what --preserve-fds counts stands behind them.
func (o *creation) takeSockets() {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); err != nil || n < 1 || pid != strconv.Itoa(os.Getpid()) {
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
