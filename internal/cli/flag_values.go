package cli

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// listFlag collects the values of a flag that may be given several times; check, where there is one, looks at each and may rewrite it.
type listFlag struct {
	values []string
	check  func(string) (string, error)
}

func (l *listFlag) String() string { return "" }
func (l *listFlag) Type() string   { return "list" }

func (l *listFlag) Set(s string) (err error) {
	if l.check != nil {
		if s, err = l.check(s); err != nil {
			return err
		}
	}
	l.values = append(l.values, s)
	return nil
}

// pairs reads key=value words; a key alone has an empty value.
func pairs(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}

// sizeFlag is a number of bytes with a unit of Docker's (k is 1024); least is the smallest that is taken.
type sizeFlag struct {
	bytes     int64
	unlimited bool // -1 is taken
}

func (f *sizeFlag) Type() string { return "bytes" }

func (f *sizeFlag) String() string {
	if f.bytes == 0 {
		return ""
	}
	return units.BytesSize(float64(f.bytes))
}

func (f *sizeFlag) Set(s string) error {
	if f.unlimited && s == "-1" {
		f.bytes = -1
		return nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil {
		if f.unlimited {
			return errors.New("give a size such as 512m or 2g, or -1 for no limit")
		}
		return errors.New("give a size such as 512m or 2g")
	}
	f.bytes = n
	return nil
}

// cpusFlag is a number of processors in billionths.
type cpusFlag struct{ nano int64 }

func (f *cpusFlag) Type() string { return "decimal" }

func (f *cpusFlag) String() string {
	if f.nano == 0 {
		return ""
	}
	return big.NewRat(f.nano, 1e9).FloatString(3)
}

func (f *cpusFlag) Set(s string) error {
	// SetString would take 1e1000000000 and compute it.
	if len(s) > 30 || strings.ContainsAny(s, "eEpPxX_/") {
		return errors.New("give a number of processors such as 0.5 or 2")
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return errors.New("give a number of processors such as 0.5 or 2")
	}
	r.Mul(r, big.NewRat(1e9, 1))
	if !r.IsInt() {
		return errors.New("that is finer than a billionth of a processor")
	}
	if !r.Num().IsInt64() || r.Sign() < 0 {
		return errors.New("that is not a number of processors")
	}
	f.nano = r.Num().Int64()
	return nil
}

// durationFlag is a time.Duration that says how it is written.
type durationFlag struct{ time.Duration }

func (f *durationFlag) Type() string { return "duration" }

func (f *durationFlag) String() string {
	if f.Duration == 0 {
		return ""
	}
	return f.Duration.String()
}

func (f *durationFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("give a duration such as 500ms, 30s or 2m")
	}
	if d < 0 {
		return errors.New("it cannot be negative")
	}
	f.Duration = d
	return nil
}

// oneOf makes a check that a word is one of several.
func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		lower := strings.ToLower(s)
		for _, w := range words {
			if w == lower {
				return w, nil
			}
		}
		return "", fmt.Errorf("it can be %s", strings.Join(words, ", "))
	}
}

// windowsFlag stands for limits that Docker's engine has on Windows only.
type windowsFlag struct{}

func (windowsFlag) Type() string   { return "number" }
func (windowsFlag) String() string { return "" }
func (windowsFlag) Set(string) error {
	return errors.New("only engines on Windows have this limit: use --cpus and --device-read-bps")
}
