package docker

import (
	"encoding/json"
	"net/http"

	containers "wherry.dev/wherry/internal/container"
	"wherry.dev/wherry/internal/secret"
)

// secretRoutes are about secrets or configs of this engine. Docker's own routes stay those of a swarm, by which clients see whether it is one.
// A value comes as a request's body, and never goes into an answer: only a config's does.
type secretRoutes struct {
	s    *secret.Service
	path string // "/wherry/secrets", "/wherry/configs"
}

func (s *secretRoutes) add(add adder) {
	add("GET "+s.path, s.list)
	add("POST "+s.path, s.create)
	add("GET "+s.path+"/{name}", s.inspect)
	add("DELETE "+s.path+"/{name}", s.remove)
}

func (s *secretRoutes) list(w http.ResponseWriter, r *http.Request) error {
	filters, err := queryOf(r).filters()
	if err != nil {
		return err
	}
	list, err := s.s.List(filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *secretRoutes) create(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	var labels map[string]string
	if text := q.Get("labels"); text != "" {
		if err := json.Unmarshal([]byte(text), &labels); err != nil {
			return invalid("labels=%s is not a JSON object of strings: %v", text, err)
		}
	}
	body := http.MaxBytesReader(w, r.Body, secret.Largest+1)
	id, err := s.s.Create(r.Context(), secret.CreateOptions{Name: q.Get("name"), Labels: labels, Replace: q.yes("replace")}, body)
	if err != nil {
		return err
	}
	noteObject(r.Context(), s.path[len("/wherry/"):len(s.path)-1], id, q.Get("name"))
	return writeJSON(w, http.StatusCreated, struct{ ID string }{id})
}

func (s *secretRoutes) inspect(w http.ResponseWriter, r *http.Request) error {
	item, err := s.s.Inspect(r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, item)
}

func (s *secretRoutes) remove(w http.ResponseWriter, r *http.Request) error {
	noteObject(r.Context(), s.path[len("/wherry/"):len(s.path)-1], "", r.PathValue("name"))
	if err := s.s.Remove(r.PathValue("name")); err != nil {
		return err
	}
	return noContent(w)
}

// wherrysOwn is what a create request may say beside Docker's words.
type wherrysOwn struct {
	Secrets []containers.SecretUse
}
