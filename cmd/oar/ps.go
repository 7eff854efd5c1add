package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// ps lists a container's processes: their pids as JSON, or what ps(1) says of them.
func (r *store) ps(ctx context.Context, f flags) error {
	f.ends = true
	var format string
	f.text(&format, "format f", "table", "`table or json`")
	if err := f.parseCount(1, math.MaxInt); err != nil {
		return err
	}
	if format != "table" && format != "json" {
		return fmt.Errorf("invalid format option: %q is neither table nor json", format)
	}
	if err := checkID(f.Arg(0)); err != nil {
		return err
	}
	c, err := r.load(f.Arg(0))
	if err != nil {
		return err
	}
	pids, err := processesOf(c)
	if err != nil {
		return fmt.Errorf("processes of container %s: %w", c.ID, err)
	}
	if format == "json" {
		return json.NewEncoder(os.Stdout).Encode(append([]int{}, pids...))
	}
	options := f.Args()[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ps %s: %w: %s", strings.Join(options, " "), err, bytes.TrimSpace(out))
	}
	return filterProcesses(string(out), pids)
}

// filterProcesses prints the heading of ps's output and the lines whose PID is in the list.
func filterProcesses(out string, pids []int) error {
	heading, lines, _ := strings.Cut(out, "\n")
	column := slices.Index(strings.Fields(heading), "PID")
	if column < 0 {
		return errors.New("ps printed no column PID: give it options that do, such as -ef")
	}
	fmt.Fprintln(os.Stdout, heading)
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprint(os.Stdout, line)
		}
	}
	return nil
}
