package docker

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"

	"wherry.dev/wherry/internal/event"
)

// events streams what happens, from since until until.
func (s *systemRoutes) events(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	since, err := q.moment("since")
	if err != nil {
		return err
	}
	until, err := q.moment("until")
	if err != nil {
		return err
	}
	if !until.IsZero() && since.After(until) {
		return invalid("`since` time (%s) cannot be after `until` time (%s)", since.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	if since.IsZero() && (q.Get("since") != "" || !until.IsZero()) {
		since = time.Unix(0, 0) // whoever gives an end or 0 asks for the past too
	}
	filters, err := q.filters()
	if err != nil {
		return err
	}
	if err := checkEventFilters(filters); err != nil {
		return err
	}
	v := clientVersion(r.Context())
	contentType, before := eventStream(v, r.Header.Values("Accept"))
	begin(w, contentType)
	out := prefixed{flusher{w}, before}
	err = s.Events.Subscribe(r.Context(), since, until, func(m events.Message) error {
		if !eventMatches(filters, m) && (m.Action != event.ActionLost || m.Actor.Attributes["lost"] == "unknown") { // that some are missing, everybody hears
			return nil
		}
		return encode(out, shapeEvent(v, m))
	})
	if err != nil && r.Context().Err() == nil {
		return encode(out, map[string]string{"message": err.Error()})
	}
	return nil
}

// prefixed writes something before each document of a stream.
type prefixed struct {
	w      io.Writer
	before string
}

func (p prefixed) Write(b []byte) (int, error) {
	if p.before == "" {
		return p.w.Write(b)
	}
	_, err := p.w.Write(append([]byte(p.before), b...))
	return len(b), err
}

func checkEventFilters(filters map[string]map[string]bool) error {
	known := []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"}
	for name := range filters {
		if !slices.Contains(known, name) {
			return invalid("invalid filter '%s': events know %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// eventMatches wants every filter met by one of its values, save labels, which are wanted all.
func eventMatches(filters map[string]map[string]bool, m events.Message) bool {
	for name, values := range filters {
		if len(values) == 0 {
			continue
		}
		if name == "label" {
			for v := range values {
				if !hasLabel(m.Actor.Attributes, v) {
					return false
				}
			}
			continue
		}
		met := false
		for v := range values {
			met = met || eventMeets(m, name, v)
		}
		if !met {
			return false
		}
	}
	return true
}

func hasLabel(attributes map[string]string, label string) bool {
	key, value, hasValue := strings.Cut(label, "=")
	got, ok := attributes[key]
	return ok && (!hasValue || got == value)
}

func eventMeets(m events.Message, name, value string) bool {
	switch name {
	case "event":
		// "health_status" stands for all "health_status: …", "exec_start" for all "exec_start: COMMAND".
		action, _, _ := strings.Cut(string(m.Action), ":")
		return value == string(m.Action) || value == action
	case "type":
		return value == string(m.Type)
	case "scope":
		return value == m.Scope || m.Scope == "" && value == "local"
	case "image":
		image := m.Actor.Attributes["image"]
		if m.Type == events.ImageEventType {
			image = m.Actor.ID
		}
		return value == image || value == withoutTag(image) || value == m.Actor.Attributes["name"] && m.Type == events.ImageEventType ||
			m.Type == events.ImageEventType && value == withoutTag(m.Actor.Attributes["name"])
	case "container", "network", "volume", "plugin", "daemon":
		if string(m.Type) != name {
			return false // as Docker: what happens to a network is no event of the container in it
		}
		return strings.HasPrefix(m.Actor.ID, value) || strings.HasPrefix(m.Actor.Attributes["name"], value)
	}
	return false
}

func withoutTag(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if at := strings.LastIndexByte(ref, ':'); at > strings.LastIndexByte(ref, '/') {
		return ref[:at]
	}
	return ref
}
