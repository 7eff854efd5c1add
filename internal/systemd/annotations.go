package systemd

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// annotationPrefix begins annotations that set a unit's properties, as runc has them.
const annotationPrefix = "org.systemd.property."

// reader reads the text of one kind of value.
type reader func(text string) (any, error)

// allowed are the properties that an annotation may set. Annotations come from whoever describes a container, so each has a type and a
// bound, and none starts, stops or runs anything, names a path, or takes limits away (CVE-2024-3154). Limits are linux.resources'.
func allowed(name string) reader {
	switch name {
	case "After", "Before":
		return readUnits
	case "DefaultDependencies", "SendSIGHUP", "SendSIGKILL":
		return readBool
	case "CollectMode":
		return oneOf("inactive", "inactive-or-failed")
	case "KillMode":
		return oneOf("control-group", "mixed")
	case "OOMPolicy":
		return oneOf("continue", "stop", "kill")
	case "ManagedOOMSwap", "ManagedOOMMemoryPressure":
		return oneOf("auto", "kill")
	case "KillSignal":
		return readSignal
	case "RuntimeMaxUSec", "TimeoutStopUSec":
		return readNumber
	case "RuntimeMaxSec", "TimeoutStopSec":
		return readSeconds
	case "Description":
		return readText
	}
	return nil
}

// Annotated are the properties that a container's annotations set, in the text form of GVariant: true, 'text', ['a.service'], uint64 5.
func Annotated(annotations map[string]string) ([]Property, error) {
	var list []Property
	for key, text := range annotations {
		name, ok := strings.CutPrefix(key, annotationPrefix)
		if !ok {
			continue
		}
		read := allowed(name)
		if read == nil {
			return nil, fmt.Errorf("annotation %s: this property cannot be set by an annotation (docs/runtime.md has those that can)", key)
		}
		value, err := read(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("annotation %s is %.60q: %w", key, text, err)
		}
		if rest, ok := strings.CutSuffix(name, "MaxSec"); ok { // on the bus only microseconds have names
			name = rest + "MaxUSec"
		} else if rest, ok := strings.CutSuffix(name, "StopSec"); ok {
			name = rest + "StopUSec"
		}
		list = append(list, Property{name, value})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

func readBool(text string) (any, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return nil, fmt.Errorf("it is true or false")
}

func readNumber(text string) (any, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "uint64 "), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("it is a number, such as uint64 5000000")
	}
	return n, nil
}

func readSeconds(text string) (any, error) {
	n, err := strconv.ParseFloat(strings.TrimPrefix(text, "uint64 "), 64)
	if err != nil || !(n >= 0 && n <= 1e9) { // not a number is neither
		return nil, fmt.Errorf("it is a number of seconds")
	}
	return uint64(n * 1e6), nil
}

func readSignal(text string) (any, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(text, "int32 "), 10, 32)
	if err != nil || n < 1 || n > 64 {
		return nil, fmt.Errorf("it is a signal's number")
	}
	return int32(n), nil
}

// readText reads a quoted string without escapes.
func readText(text string) (any, error) {
	if len(text) < 2 || len(text) > 256 || text[0] != '\'' && text[0] != '"' || text[len(text)-1] != text[0] {
		return nil, fmt.Errorf("it is a text in quotes")
	}
	text, quote := text[1:len(text)-1], text[:1]
	for _, c := range text {
		if c < ' ' || c == 0x7f || c == '\\' || c == 0xfffd || string(c) == quote {
			return nil, fmt.Errorf("it has a character that a text may not have")
		}
	}
	return text, nil
}

func oneOf(words ...string) reader {
	return func(text string) (any, error) {
		v, err := readText(text)
		if word, ok := v.(string); err == nil && ok && slices.Contains(words, word) {
			return word, nil
		}
		return nil, fmt.Errorf("it is one of '%s'", strings.Join(words, "', '"))
	}
}

// maxUnits bounds a list of units.
const maxUnits = 16

// readUnits reads a list of unit names: ['a.service', 'b.target'].
func readUnits(text string) (any, error) {
	text = strings.TrimPrefix(text, "@as ")
	if !strings.HasPrefix(text, "[") || !strings.HasSuffix(text, "]") || len(text) < 2 {
		return nil, fmt.Errorf("it is a list of units, such as ['a.service']")
	}
	units := []string{}
	text = strings.TrimSpace(text[1 : len(text)-1])
	if text == "" {
		return units, nil
	}
	for _, word := range strings.SplitN(text, ",", maxUnits+1) {
		v, err := readText(strings.TrimSpace(word))
		unit, _ := v.(string)
		if err != nil || checkUnit(unit, "") != nil || !strings.Contains(unit, ".") {
			return nil, fmt.Errorf("it is a list of at most %d units, such as ['a.service']", maxUnits)
		}
		units = append(units, unit)
	}
	return units, nil
}
