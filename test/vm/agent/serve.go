package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

type request struct {
	ID     int
	Script string
}

type answer struct {
	ID     int
	Output string
	Code   int
}

// host is where the engine listens: not its default, so that no client starts one by itself.
const host = "unix:///run/wherry.sock"

// serve answers until the host hangs up.
func serve(port *os.File) {
	var mu sync.Mutex // guards writes to port
	send := func(a answer) {
		b, err := json.Marshal(a)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = port.Write(append(b, '\n'))
	}
	send(answer{}) // "here I am"
	lines := bufio.NewScanner(port)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			fmt.Fprintln(os.Stderr, "agent: not understood:", lines.Text())
			continue
		}
		go func() { send(run(r)) }()
	}
}

func run(r request) answer {
	cmd := exec.Command("/bin/sh", "-c", r.Script)
	cmd.Dir = "/root"
	cmd.Env = []string{"PATH=/bin:/sbin", "HOME=/root", "WHERRY_HOST=" + host, "DOCKER_HOST=" + host}
	out, err := cmd.CombinedOutput()
	a := answer{ID: r.ID, Output: string(out), Code: cmd.ProcessState.ExitCode()}
	if err != nil && a.Code <= 0 {
		a.Code, a.Output = -1, a.Output+err.Error()
	}
	return a
}

// openPort finds a virtio port by its name.
func openPort(name string) (*os.File, error) {
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == name {
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(file))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no virtio port is named %s", name)
}
