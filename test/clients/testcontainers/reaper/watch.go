package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/moby/moby/client"
)

// limits are how long to wait for the first client, and for another one when the last has gone.
func limits() (first, again time.Duration, err error) {
	first, again = time.Minute, 10*time.Second
	for name, d := range map[string]*time.Duration{"RYUK_CONNECTION_TIMEOUT": &first, "RYUK_RECONNECTION_TIMEOUT": &again} {
		if text := os.Getenv(name); text != "" {
			if *d, err = time.ParseDuration(text); err != nil {
				return 0, 0, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return first, again, nil
}

// watch takes clients until the last has gone for good, and gives what they asked for: a set of filters each.
//
//	client                                    reaper
//	label=NAME=VALUE&label=NAME=VALUE\n   →
//	                                      ←   ACK\n
//	close                                 →
func watch(ctx context.Context, listener net.Listener, first, again time.Duration) map[string]client.Filters {
	wanted := map[string]client.Filters{}
	came, asked, gone := make(chan net.Conn), make(chan string), make(chan struct{})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			came <- c
		}
	}()
	clients := 0
	idle := time.NewTimer(first)
	for {
		select {
		case c := <-came:
			clients++
			idle.Stop()
			go serve(c, asked, gone)
		case line := <-asked:
			if f := parse(line); len(f) > 0 {
				wanted[line] = f
			}
		case <-gone:
			if clients--; clients == 0 {
				idle.Reset(again)
			}
		case <-idle.C:
			return wanted
		case <-ctx.Done():
			return wanted
		}
	}
}

func serve(c net.Conn, asked chan<- string, gone chan<- struct{}) {
	defer func() { c.Close(); gone <- struct{}{} }()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		asked <- lines.Text()
		if _, err := io.WriteString(c, "ACK\n"); err != nil {
			return
		}
	}
}

// parse reads one client's line.
func parse(line string) client.Filters {
	values, err := url.ParseQuery(line)
	if err != nil {
		return nil
	}
	f := client.Filters{}
	for name, list := range values {
		f.Add(name, list...)
	}
	return f
}
