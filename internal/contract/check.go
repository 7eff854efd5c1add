package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// check is the work on one exchange.
type check struct {
	file      *file
	exchange  Exchange
	operation string
	problems  []Problem
}

func (c *check) say(at, format string, args ...any) {
	p := Problem{Version: c.file.version, Operation: c.operation, At: at, What: fmt.Sprintf(format, args...)}
	if !slices.Contains(c.problems, p) {
		c.problems = append(c.problems, p)
	}
}

func (c *check) run(path string) {
	e := c.exchange
	if e.Status == http.StatusRequestHeaderFieldsTooLarge {
		return // no route has seen it
	}
	r, operation, ok := c.file.find(e.Method, path)
	if !ok {
		c.operation = e.Method + " " + path
		if e.Status < 400 {
			c.say("path", "the specification has no such route, and the answer is %d", e.Status)
		}
		return
	}
	c.operation = e.Method + " " + r.path
	// A request that is refused may be wrong in any way: only its answer is held against the specification then.
	if e.Status < 400 {
		c.request(append(slices.Clone(r.common), list(operation["parameters"])...))
	}
	c.answer(operation)
}

// request checks parameters and body.
func (c *check) request(parameters []any) {
	known := map[string]map[string]any{}
	for _, p := range parameters {
		p := c.resolve(object(p))
		switch text(p["in"]) {
		case "query":
			known[text(p["name"])] = p
		case "body":
			c.requestBody(p)
		}
	}
	query := c.exchange.URL.Query()
	for name, values := range query {
		p, ok := known[name]
		if !ok {
			c.say("query "+name, "the specification has no such parameter")
			continue
		}
		for _, v := range values {
			c.parameter(name, v, p)
		}
	}
	for name, p := range known {
		if truth(p["required"]) && !query.Has(name) {
			c.say("query "+name, "it is required")
		}
	}
}

func (c *check) parameter(name, value string, p map[string]any) {
	var err error
	switch text(p["type"]) {
	case "integer":
		if value != "" {
			_, err = strconv.ParseInt(value, 10, 64)
		}
	case "boolean":
		if value != "" {
			_, err = strconv.ParseBool(value)
		}
	}
	if err != nil {
		c.say("query "+name, "%q is no %s", value, text(p["type"]))
	}
	if enum := list(p["enum"]); len(enum) > 0 && value != "" && !slices.Contains(enum, any(value)) {
		c.say("query "+name, "%q is none of %v", value, enum)
	}
}

// anywhere are the errors that any route may answer with, in the form that the specification's introduction gives errors: few of its
// routes list those for what is wrong with a request, who may not make it, and what the engine does not have or cannot reach.
func anywhere() []int {
	return []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge,
		http.StatusInternalServerError, http.StatusNotImplemented, http.StatusServiceUnavailable}
}

func (c *check) requestBody(p map[string]any) {
	e := c.exchange
	kind, _, _ := mime.ParseMediaType(e.Header.Get("Content-Type"))
	schema := object(p["schema"])
	if !e.Whole || kind != "application/json" || schema == nil || text(c.resolve(schema)["format"]) == "binary" {
		return
	}
	c.documents("request", e.Body, schema)
}

// answer checks status, content type and body.
func (c *check) answer(operation map[string]any) {
	e := c.exchange
	at := "answer " + strconv.Itoa(e.Status)
	responses := object(operation["responses"])
	response, ok := responses[strconv.Itoa(e.Status)]
	if !ok {
		response, ok = responses["default"]
	}
	if !ok && slices.Contains(anywhere(), e.Status) {
		response, ok = map[string]any{"schema": map[string]any{"$ref": "#/definitions/ErrorResponse"}}, true
	}
	if !ok {
		c.say(at, "the specification has no such status")
		return
	}
	kind, _, _ := mime.ParseMediaType(e.Answer.Get("Content-Type"))
	if len(e.Said) == 0 || e.Method == http.MethodHead || !e.Whole {
		return
	}
	schema := object(c.resolve(object(response))["schema"])
	if schema == nil || text(c.resolve(schema)["format"]) == "binary" {
		return
	}
	if text(c.resolve(schema)["type"]) == "string" && !strings.HasSuffix(kind, "json") {
		return
	}
	produces := list(operation["produces"])
	if produces == nil {
		produces = list(c.file.tree["produces"])
	}
	if e.Status < 300 && !slices.Contains(produces, any(kind)) {
		c.say(at+" Content-Type", "%q is none of %v", kind, produces)
	}
	said := e.Said
	if kind == "application/json-seq" {
		said = bytes.ReplaceAll(said, []byte{recordSeparator}, nil) // which JSON has nowhere
	}
	c.documents(at+" ", said, schema)
}

// recordSeparator stands before each document of a sequence (RFC 7464).
const recordSeparator = 0x1e

// documents checks one JSON document, or the many of a stream.
func (c *check) documents(at string, body []byte, schema map[string]any) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	for {
		var v any
		err := d.Decode(&v)
		if err == io.EOF {
			return
		}
		if err != nil {
			c.say(at, "it is no JSON: %v", err)
			return
		}
		c.value(at, v, schema)
	}
}
