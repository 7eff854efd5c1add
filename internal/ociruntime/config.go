package ociruntime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DecodeSpec reads a config.json (runtime-spec, "Configuration") as encoding/json does, save that of two members with one name the last one
// counts as a whole. It looks at the types of those members only that are there: encoding/json first prepares for all that a configuration
// could have on any system, which takes five times as long and is a tenth of a start.
func DecodeSpec(config []byte) (*specs.Spec, error) {
	d := json.NewDecoder(bytes.NewReader(config))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the configuration's end")
	}
	var spec specs.Spec
	if err := fill(reflect.ValueOf(&spec).Elem(), tree); err != nil {
		return nil, err
	}
	return &spec, nil
}

// fill sets a value from decoded JSON. Errors begin with the path of the member.
func fill(to reflect.Value, from any) error {
	if from == nil { // null: as encoding/json
		switch to.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
			to.SetZero()
		}
		return nil
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		return fill(to.Elem(), from)
	case reflect.Struct:
		return fillStruct(to, from)
	case reflect.Slice:
		return fillSlice(to, from)
	case reflect.Map:
		return fillMap(to, from)
	case reflect.Interface:
		to.Set(reflect.ValueOf(from))
		return nil
	}
	return fillScalar(to, from)
}

func fillStruct(to reflect.Value, from any) error {
	members, ok := from.(map[string]any)
	if !ok {
		return mismatch("an object", from)
	}
	for name, member := range members {
		field, ok := fieldOf(to, name)
		if !ok {
			continue
		}
		if err := fill(field, member); err != nil {
			return below(name, err)
		}
	}
	return nil
}

// fieldOf finds a member's field: by its very name, else whatever the case, as encoding/json does.
func fieldOf(to reflect.Value, name string) (field reflect.Value, ok bool) {
	t := to.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if inner, found := fieldOf(to.Field(i), name); found {
				return inner, true
			}
			continue
		}
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return to.Field(i), true
		}
		if tag != "-" && strings.EqualFold(tag, name) {
			field, ok = to.Field(i), true
		}
	}
	return field, ok
}

func fillSlice(to reflect.Value, from any) error {
	items, ok := from.([]any)
	if !ok {
		return mismatch("a list", from)
	}
	to.Set(reflect.MakeSlice(to.Type(), len(items), len(items)))
	for i, item := range items {
		if err := fill(to.Index(i), item); err != nil {
			return below(strconv.Itoa(i), err)
		}
	}
	return nil
}

func fillMap(to reflect.Value, from any) error {
	members, ok := from.(map[string]any)
	if !ok {
		return mismatch("an object", from)
	}
	to.Set(reflect.MakeMapWithSize(to.Type(), len(members)))
	for name, member := range members {
		value := reflect.New(to.Type().Elem()).Elem()
		if err := fill(value, member); err != nil {
			return below(name, err)
		}
		to.SetMapIndex(reflect.ValueOf(name).Convert(to.Type().Key()), value)
	}
	return nil
}

func fillScalar(to reflect.Value, from any) error {
	switch to.Kind() {
	case reflect.String:
		s, ok := from.(string)
		if !ok {
			return mismatch("a string", from)
		}
		to.SetString(s)
	case reflect.Bool:
		b, ok := from.(bool)
		if !ok {
			return mismatch("true or false", from)
		}
		to.SetBool(b)
	default:
		n, ok := from.(json.Number)
		if !ok {
			return mismatch("a number", from)
		}
		return fillNumber(to, n.String())
	}
	return nil
}

func fillNumber(to reflect.Value, n string) error {
	bits := to.Type().Bits()
	switch {
	case to.CanInt():
		v, err := strconv.ParseInt(n, 10, bits)
		to.SetInt(v)
		return numberError(n, to, err)
	case to.CanUint():
		v, err := strconv.ParseUint(n, 10, bits)
		to.SetUint(v)
		return numberError(n, to, err)
	}
	v, err := strconv.ParseFloat(n, bits)
	to.SetFloat(v)
	return numberError(n, to, err)
}

func numberError(n string, to reflect.Value, err error) error {
	if err == nil {
		return nil
	}
	return &memberError{why: fmt.Sprintf("%s is not a number of type %s", n, to.Kind())}
}

// memberError says which member is wrong.
type memberError struct{ path, why string }

func (e *memberError) Error() string {
	if e.path == "" {
		return e.why
	}
	return e.path + ": " + e.why
}

// below adds a step to the front of an error's path.
func below(name string, err error) error {
	var e *memberError
	if !errors.As(err, &e) {
		return err
	}
	e.path = strings.TrimSuffix(name+"."+e.path, ".")
	return e
}

func mismatch(want string, have any) error {
	kind := "something else"
	switch have.(type) {
	case map[string]any:
		kind = "an object"
	case []any:
		kind = "a list"
	case string:
		kind = "a string"
	case bool:
		kind = "true or false"
	case json.Number:
		kind = "a number"
	}
	return &memberError{why: fmt.Sprintf("it is %s and must be %s", kind, want)}
}
