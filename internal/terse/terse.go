// Package terse encodes requests as JSON without the fields that have their zero values.
//
// Package encoding/json builds an encoder for each type that a type mentions before it encodes the first value: for the request that makes a
// container that takes longer than all else a short-lived client does with it. Here only the fields that are set are looked at.
package terse

import (
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Marshal encodes a value as encoding/json does (names and options of tags, embedded structs, MarshalJSON, MarshalText), but leaves out every
// field of a struct that is zero as reflect.Value.IsZero says. A slice or a map that is empty and not nil is written. Of two fields with one name
// the first is written.
func Marshal(v any) ([]byte, error) {
	e := encoder{}
	err := e.value(reflect.ValueOf(v))
	return e.b, err
}

type encoder struct{ b []byte }

var (
	jsonType = reflect.TypeFor[json.Marshaler]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
)

func (e *encoder) value(v reflect.Value) error {
	switch {
	case !v.IsValid() || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil():
		e.b = append(e.b, "null"...)
		return nil
	case implements(v, jsonType), implements(v, textType):
		return e.whole(v)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return e.value(v.Elem())
	case reflect.Struct:
		return e.list('{', '}', func() error { return e.fields(v) })
	case reflect.Map:
		if v.IsNil() || v.Type().Key().Kind() != reflect.String || v.Type().Key().Implements(textType) {
			return e.whole(v)
		}
		return e.list('{', '}', func() error { return e.entries(v) })
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && (v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8) {
			return e.whole(v)
		}
		return e.list('[', ']', func() error {
			for i := range v.Len() {
				e.next()
				if err := e.value(v.Index(i)); err != nil {
					return err
				}
			}
			return nil
		})
	case reflect.Bool:
		e.b = strconv.AppendBool(e.b, v.Bool())
		return nil
	}
	return e.whole(v)
}

// implements says that a value encodes itself; one that can be addressed may do so by its pointer.
func implements(v reflect.Value, t reflect.Type) bool {
	return v.Type().Implements(t) || v.CanAddr() && reflect.PointerTo(v.Type()).Implements(t)
}

// whole leaves a value to encoding/json.
func (e *encoder) whole(v reflect.Value) error {
	if v.CanAddr() && v.Kind() != reflect.Interface {
		v = v.Addr()
	}
	b, err := json.Marshal(v.Interface())
	e.b = append(e.b, b...)
	return err
}

// list writes what is between two brackets.
func (e *encoder) list(open, end byte, fn func() error) error {
	e.b = append(e.b, open)
	err := fn()
	e.b = append(e.b, end)
	return err
}

// next writes the comma before all but the first.
func (e *encoder) next() {
	if last := e.b[len(e.b)-1]; last != '{' && last != '[' {
		e.b = append(e.b, ',')
	}
}

func (e *encoder) name(s string) error {
	e.next()
	b, err := json.Marshal(s)
	e.b = append(append(e.b, b...), ':')
	return err
}

func (e *encoder) entries(v reflect.Value) error {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	for _, k := range keys {
		if err := e.name(k.String()); err != nil {
			return err
		}
		if err := e.value(v.MapIndex(k)); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) fields(v reflect.Value) error {
	t := v.Type()
	for i := range t.NumField() {
		value := v.Field(i)
		if value.IsZero() {
			continue
		}
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if f.Anonymous && name == "" {
			for value.Kind() == reflect.Pointer {
				value = value.Elem()
			}
			if value.Kind() == reflect.Struct {
				if err := e.fields(value); err != nil {
					return err
				}
				continue
			}
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if err := e.field(name, options, value); err != nil {
			return fmt.Errorf("%s of %s: %w", f.Name, t, err)
		}
	}
	return nil
}

func (e *encoder) field(name, options string, value reflect.Value) error {
	for _, o := range strings.Split(options, ",") {
		switch {
		case o == "string":
			return errors.New("the option string of its tag is not known here")
		case o == "omitempty" && (value.Kind() == reflect.Map || value.Kind() == reflect.Slice) && value.Len() == 0:
			return nil
		}
	}
	if err := e.name(name); err != nil {
		return err
	}
	return e.value(value)
}
