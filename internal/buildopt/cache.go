package buildopt

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Usage are the flags of builder du.
type Usage struct {
	Verbose bool
	Format  string
	Filters []string
}

// Register adds them to a set.
func (u *Usage) Register(fs *pflag.FlagSet) {
	fs.BoolVarP(&u.Verbose, "verbose", "v", false, "Say everything of each entry")
	fs.StringVar(&u.Format, "format", "", "table, or json for an object a line")
	fs.StringArrayVarP(&u.Filters, "filter", "f", nil, "Only those that this fits: id, type, description, inuse, mutable, shared, private, parents")
}

// Validate refuses values that nothing could come of.
func (u *Usage) Validate() error {
	for _, f := range u.Filters {
		if err := checkFilter(f); err != nil {
			return err
		}
	}
	switch u.Format {
	case "", "table", "json":
		return nil
	}
	return fmt.Errorf("--format %q: it can be table or json", u.Format)
}

// Prune are the flags of builder prune.
type Prune struct {
	All, Force, Verbose      bool
	Filters                  []string
	Reserved, MostUsed, Free string
}

// Register adds them to a set.
func (p *Prune) Register(fs *pflag.FlagSet) {
	fs.BoolVarP(&p.All, "all", "a", false, "Also what images of this engine and frontends still use")
	fs.BoolVarP(&p.Force, "force", "f", false, "Do not ask")
	fs.BoolVarP(&p.Verbose, "verbose", "v", false, "Say everything of each entry")
	fs.StringArrayVar(&p.Filters, "filter", nil, "Only those that this fits, such as until=24h (not used for so long) or type=exec.cachemount")
	fs.StringVar(&p.Reserved, "reserved-space", "", "Leave so much, such as 10g")
	fs.StringVar(&p.Reserved, "keep-storage", "", "The same, as older versions of docker call it")
	fs.StringVar(&p.MostUsed, "max-used-space", "", "Leave at most so much")
	fs.StringVar(&p.Free, "min-free-space", "", "Remove until so much of the disk is free")
}

// Limits of a pruning.
type Limits struct {
	Reserved, MostUsed, Free int64
	Unused                   time.Duration // not used for so long
	Filters                  []string
}

// Limits reads the flags.
func (p *Prune) Limits() (l Limits, err error) {
	for _, s := range []struct {
		flag, text string
		into       *int64
	}{{"--reserved-space", p.Reserved, &l.Reserved}, {"--max-used-space", p.MostUsed, &l.MostUsed}, {"--min-free-space", p.Free, &l.Free}} {
		if *s.into, err = bytes(s.text); err != nil || *s.into < 0 {
			return l, fmt.Errorf("%s %q: give a size such as 512m or 10g", s.flag, s.text)
		}
	}
	for _, f := range p.Filters {
		age, ok := strings.CutPrefix(f, "until=")
		if !ok {
			age, ok = strings.CutPrefix(f, "unused-for=")
		}
		if !ok {
			if err := checkFilter(f); err != nil {
				return l, err
			}
			l.Filters = append(l.Filters, engineFilter(f))
			continue
		}
		if l.Unused, err = time.ParseDuration(age); err != nil || l.Unused < 0 {
			return l, fmt.Errorf("--filter %q: give a duration such as 24h", f)
		}
	}
	return l, nil
}

// EngineFilters are filters as BuildKit writes them.
func (u *Usage) EngineFilters() []string {
	out := make([]string, len(u.Filters))
	for i, f := range u.Filters {
		out[i] = engineFilter(f)
	}
	return out
}

// filterNames are what an entry of the cache has.
var filterNames = [...]string{"id", "type", "description", "inuse", "mutable", "immutable", "shared", "private", "parents"}

// checkFilter refuses a name that no entry has: a filter of it would fit none, or with != all.
func checkFilter(f string) error {
	for part := range strings.SplitSeq(f, ",") {
		name := part
		if end := strings.IndexAny(part, "=!~"); end >= 0 {
			name = part[:end]
		}
		if !slices.Contains(filterNames[:], name) {
			return fmt.Errorf("--filter %q: there is no %q to go by: there are until, unused-for (of prune), %s", f, name, strings.Join(filterNames[:], ", "))
		}
		if strings.ContainsAny(part, "\"/") { // a quoted value may have commas
			break
		}
	}
	return nil
}

// engineFilter writes key=value as key==value, and inuse=true as inuse.
func engineFilter(f string) string {
	key, value, ok := strings.Cut(f, "=")
	switch {
	case !ok, strings.HasPrefix(value, "="), strings.HasPrefix(value, "~"), strings.HasSuffix(key, "~"), strings.HasSuffix(key, "!"):
		return f
	case value == "true" || value == "1":
		return key
	}
	return key + "==" + value
}
