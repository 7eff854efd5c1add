package contract

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// resolve follows $ref.
func (c *check) resolve(node map[string]any) map[string]any {
	for range 20 {
		ref, ok := node["$ref"].(string)
		if !ok {
			return node
		}
		var at any = c.file.tree
		for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			at = object(at)[step]
		}
		node = object(at)
	}
	return node
}

// shape is a schema with all its parts (allOf) put together.
type shape struct {
	kind       string
	nullable   bool
	properties map[string]map[string]any
	required   []string
	values     map[string]any // of a map
	open       bool           // any field may be there
	items      map[string]any
	enum       []any
	format     string
}

func (c *check) shape(schema map[string]any) shape {
	s := shape{properties: map[string]map[string]any{}}
	s.nullable = truth(schema["x-nullable"])
	c.gather(&s, schema)
	if s.kind == "" && (len(s.properties) > 0 || s.values != nil) {
		s.kind = "object"
	}
	s.open = s.open || s.kind == "object" && len(s.properties) == 0 && s.values == nil
	return s
}

func (c *check) gather(s *shape, schema map[string]any) {
	schema = c.resolve(schema)
	s.nullable = s.nullable || truth(schema["x-nullable"])
	for _, part := range list(schema["allOf"]) {
		c.gather(s, object(part))
	}
	if kind := text(schema["type"]); kind != "" {
		s.kind = kind
	}
	if format := text(schema["format"]); format != "" {
		s.format = format
	}
	for name, p := range object(schema["properties"]) {
		s.properties[name] = object(p)
	}
	for _, name := range list(schema["required"]) {
		s.required = append(s.required, text(name))
	}
	switch more := schema["additionalProperties"].(type) {
	case map[string]any:
		s.values = more
	case bool:
		s.open = s.open || more
	}
	if items := object(schema["items"]); items != nil {
		s.items = items
	}
	s.enum = append(s.enum, list(schema["enum"])...)
}

// value checks a JSON value.
func (c *check) value(at string, v any, schema map[string]any) {
	if len(schema) == 0 {
		return
	}
	s := c.shape(schema)
	switch v := v.(type) {
	case nil:
		if !s.nullable && s.kind != "" && !asked(at) {
			c.say(at, "it is null, not %s", s.kind)
		}
	case map[string]any:
		if s.kind == "object" || s.kind == "" {
			c.fields(at, v, s)
		} else {
			c.say(at, "it is an object, not %s", s.kind)
		}
	case []any:
		if s.kind != "array" && s.kind != "" {
			c.say(at, "it is an array, not %s", s.kind)
			return
		}
		for _, one := range v {
			c.value(at+"[]", one, s.items)
		}
	default:
		c.scalar(at, v, s)
	}
}

// asked says whether a place is in a request: there null and "" stand for what is not given.
func asked(at string) bool { return strings.HasPrefix(at, "request") }

const noSuchField = "the specification has no such field"

func (c *check) fields(at string, v map[string]any, s shape) {
	for name, one := range v {
		property, ok := s.properties[name]
		switch {
		case ok:
			c.value(at+"."+name, one, property)
		case s.values != nil:
			c.value(at+".*", one, s.values)
		case !s.open && s.kind != "":
			c.say(at+"."+name, noSuchField)
		}
	}
	for _, name := range s.required {
		if _, ok := v[name]; !ok {
			c.say(at+"."+name, "it is required, and missing")
		}
	}
}

func (c *check) scalar(at string, v any, s shape) {
	ok := true
	switch v := v.(type) {
	case string:
		ok = s.kind == "string" || s.kind == ""
		if ok && strings.EqualFold(strings.ReplaceAll(s.format, "-", ""), "datetime") && v != "" {
			if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
				c.say(at, "%q is no time of RFC 3339", v)
			}
		}
		if ok && len(s.enum) > 0 && (v != "" || !asked(at)) && !slices.Contains(s.enum, any(v)) {
			c.say(at, "%q is none of %v", v, s.enum)
		}
	case json.Number:
		_, err := v.Int64()
		whole := err == nil || !strings.ContainsAny(v.String(), ".eE")
		ok = s.kind == "number" || s.kind == "" || s.kind == "integer" && whole
	case bool:
		ok = s.kind == "boolean" || s.kind == ""
	}
	if !ok {
		c.say(at, "%v is no %s", v, s.kind)
	}
}
