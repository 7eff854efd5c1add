package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// ParseSignal reads a number or a name, with SIG or without it.
func ParseSignal(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("invalid signal: %s: a number from 1 to 64 is needed: %w", text, errdefs.ErrInvalidArgument)
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if n, ok := signalNumbers[name]; ok {
		return n, nil
	}
	for _, row := range []struct {
		prefix string
		base   int
		sign   int
	}{{"RTMIN", 34, 1}, {"RTMAX", 64, -1}} {
		if rest, ok := strings.CutPrefix(name, row.prefix); ok {
			offset, err := strconv.Atoi(strings.Trim(rest, "+-"))
			if n := row.base + row.sign*offset; (rest == "" || err == nil) && n >= 34 && n <= 64 {
				return n, nil
			}
		}
	}
	names := make([]string, 0, len(signalNumbers))
	for n := range signalNumbers {
		names = append(names, n)
	}
	slices.Sort(names)
	return 0, fmt.Errorf("invalid signal: %s: %s: %w", text, Suggest(name, names), errdefs.ErrInvalidArgument)
}

// signalNumbers of Linux on the machines that this engine is built for (signal(7)).
var signalNumbers = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12,
	"PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22,
	"URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31,
}
