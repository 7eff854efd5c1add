package settings

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Amount is a part of a file system, in percent or bytes: "85%", "40GB".
type Amount struct {
	n       int64
	percent bool
}

// Percent is that part of the whole.
func Percent(n int64) Amount { return Amount{n: n, percent: true} }

// Bytes is a part regardless of the whole.
func Bytes(n int64) Amount { return Amount{n: n} }

// Of is the amount in bytes where the whole has so many.
func (a Amount) Of(whole int64) int64 {
	if a.percent {
		return whole / 100 * a.n
	}
	return a.n
}

// String is what UnmarshalText reads.
func (a Amount) String() string {
	if a.percent {
		return strconv.FormatInt(a.n, 10) + "%"
	}
	return units.CustomSize("%.4g%s", float64(a.n), 1000, []string{"B", "kB", "MB", "GB", "TB", "PB"})
}

// MarshalText is String.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a percentage, or a number of bytes with a unit (kB is 1000, KiB 1024).
func (a *Amount) UnmarshalText(b []byte) error {
	s := strings.TrimSpace(string(b))
	if digits, ok := strings.CutSuffix(s, "%"); ok {
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 1 || n > 100 {
			return fmt.Errorf("%q is no percentage from 1%% to 100%%", s)
		}
		*a = Percent(n)
		return nil
	}
	parse := units.FromHumanSize
	if strings.Contains(strings.ToLower(s), "ib") {
		parse = units.RAMInBytes
	}
	n, err := parse(s)
	if err != nil || n < 1 || strings.Trim(s, "0123456789.") == "" { // a number alone could mean either
		return fmt.Errorf("%q is neither a percentage, such as \"85%%\", nor a size with its unit, such as \"40GB\"", s)
	}
	*a = Bytes(n)
	return nil
}

// Duration is a time span: "90m", "24h", "7d".
type Duration time.Duration

// The units of Duration.
const (
	Minute = Duration(time.Minute)
	Hour   = 60 * Minute
	Day    = 24 * Hour
)

// String is what UnmarshalText reads.
func (d Duration) String() string {
	switch {
	case d != 0 && d%Day == 0:
		return strconv.FormatInt(int64(d/Day), 10) + "d"
	case d != 0 && d%Hour == 0:
		return strconv.FormatInt(int64(d/Hour), 10) + "h"
	case d != 0 && d%Minute == 0:
		return strconv.FormatInt(int64(d/Minute), 10) + "m"
	}
	return time.Duration(d).String()
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what Go's durations say, and days.
func (d *Duration) UnmarshalText(b []byte) error {
	s := strings.TrimSpace(string(b))
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseInt(days, 10, 32); err == nil && n >= 0 && n <= int64(math.MaxInt64/Day) {
			*d = Duration(n) * Day
			return nil
		}
	}
	n, err := time.ParseDuration(s)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is no time span, such as \"30m\", \"24h\" or \"7d\"", s)
	}
	*d = Duration(n)
	return nil
}
