package docker

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	containers "wherry.dev/wherry/internal/container"
)

// replaceLine is a line of the answer to POST /wherry/containers/{id}/replace: one of its fields.
type replaceLine struct {
	Status string `json:",omitempty"`   // how far it is
	ID     string `json:"Id,omitempty"` // the last line: of the container that serves now
	Error  string `json:",omitempty"`   // instead of it
}

// replace answers POST /wherry/containers/{id}/replace?image=…[&health-timeout=…][&settle=…][&drain=…][&t=…][&signal=…][&keep=1]. What is wrong before
// there is a new container is an answer with a status code; afterwards it is the last line.
func (c *containerRoutes) replace(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	o := containers.ReplaceOptions{Keep: q.yes("keep")}
	var err error
	if o.Stop, err = stopOptions(r); err != nil {
		return err
	}
	for name, d := range map[string]*time.Duration{"health-timeout": &o.HealthTimeout, "settle": &o.Settle, "drain": &o.Drain} {
		if text := q.Get(name); text != "" {
			if *d, err = time.ParseDuration(text); err != nil {
				return invalid("%s=%s: write a duration such as 30s", name, text)
			}
			if *d == 0 {
				*d = -1
			}
		}
	}
	var mu sync.Mutex
	begun := false
	e := json.NewEncoder(flusher{w})
	say := func(l replaceLine) {
		mu.Lock()
		defer mu.Unlock()
		if !begun {
			begun = true
			begin(w, "application/x-ndjson")
		}
		_ = e.Encode(l) // the client has gone: the context ends
	}
	o.Tell = func(text string) {
		if r.Context().Err() == nil {
			say(replaceLine{Status: text})
		}
	}
	id, err := containers.Replace(r.Context(), c.s, r.PathValue("id"), q.Get("image"), o)
	mu.Lock()
	told := begun
	mu.Unlock()
	switch {
	case err != nil && !told:
		return err
	case err != nil:
		say(replaceLine{Error: err.Error()})
	default:
		say(replaceLine{ID: id})
	}
	return nil
}
