package ociruntime

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// everyMember fills a value of any of the specification's types with something in every member.
func everyMember(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		everyMember(v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() || v.Type().Field(i).Anonymous {
				everyMember(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		everyMember(v.Index(0), depth+1)
		everyMember(v.Index(1), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		item := reflect.New(v.Type().Elem()).Elem()
		everyMember(item, depth+1)
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), item)
	case reflect.Interface:
		v.Set(reflect.ValueOf("text"))
	case reflect.String:
		v.SetString(strings.Repeat("a", depth+1))
	case reflect.Bool:
		v.SetBool(true)
	default:
		if v.CanInt() {
			v.SetInt(-int64(depth) - 1)
		} else {
			v.SetUint(uint64(depth) + 1)
		}
	}
}

func wholeSpec(t testing.TB) []byte {
	t.Helper()
	var spec specs.Spec
	everyMember(reflect.ValueOf(&spec).Elem(), 0)
	b, err := json.MarshalIndent(spec, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeSpecReadsEveryMember(t *testing.T) {
	config := wholeSpec(t)
	var want specs.Spec
	if err := json.Unmarshal(config, &want); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSpec(config)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*got, want) {
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		t.Fatalf("decoded\n%s\nwanted\n%s", a, b)
	}
}

func TestDecodeSpecNamesTheWrongMember(t *testing.T) {
	for config, want := range map[string]string{
		`{"process":{"user":{"uid":4294967296}}}`:               "process.user.uid: 4294967296 is not a number of type uint32",
		`{"process":{"user":{"uid":-1}}}`:                       "process.user.uid: -1 is not a number of type uint32",
		`{"process":{"args":"sh"}}`:                             "process.args: it is a string and must be a list",
		`{"linux":{"namespaces":[{"type":"pid"},{"type":{}}]}}`: "linux.namespaces.1.type: it is an object and must be a string",
		`{"annotations":{"a":1}}`:                               "annotations.a: it is a number and must be a string",
		`[]`:                                                    "it is a list and must be an object",
		`{"root":{"readonly":"yes"}}`:                           "root.readonly: it is a string and must be true or false",
		`{"linux":{"resources":{"pids":{"limit":1.5}}}}`:        "linux.resources.pids.limit: 1.5 is not a number of type int64",
		`{} {}`: "something follows the configuration's end",
	} {
		if _, err := DecodeSpec([]byte(config)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, not %s", config, err, want)
		}
	}
}

// repeats says that an object names a member twice, whatever the case: there the two decoders may differ.
func repeats(config []byte) bool {
	d := json.NewDecoder(bytes.NewReader(config))
	var names []map[string]bool
	var expectName []bool
	for {
		token, err := d.Token()
		if err != nil {
			return err != io.EOF
		}
		if delim, ok := token.(json.Delim); ok {
			switch delim {
			case '{', '[':
				names, expectName = append(names, map[string]bool{}), append(expectName, delim == '{')
				continue
			default:
				names, expectName = names[:len(names)-1], expectName[:len(expectName)-1]
			}
		} else if n := len(names); n > 0 && expectName[n-1] {
			name := strings.ToLower(token.(string))
			if names[n-1][name] || strings.IndexFunc(name, func(r rune) bool { return r > 127 }) >= 0 {
				return true
			}
			names[n-1][name], expectName[n-1] = true, false
			continue
		}
		if n := len(names); n > 0 && len(names[n-1]) > 0 {
			expectName[n-1] = true
		}
	}
}

func FuzzDecodeSpec(f *testing.F) {
	f.Add(wholeSpec(f))
	for _, config := range []string{`{"ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/","user":{}},"root":{"path":"rootfs"}}`, `{"OCIVERSION":"1"}`,
		`{"linux":{"resources":{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":500}]}}}}`, `null`, `{"mounts":[null,{}],"linux":null}`,
		`{"windows":{"credentialSpec":{"a":[1]}}}`, `{"linux":{"devices":[{"fileMode":438,"uid":0}]}}`} {
		f.Add([]byte(config))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		var want specs.Spec
		wantErr := json.Unmarshal(config, &want)
		got, err := DecodeSpec(config)
		if repeats(config) {
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, encoding/json: %v", err, wantErr)
		}
		if err != nil || want.Windows != nil { // an "any" there has numbers as text
			return
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("decoded %+v, wanted %+v", *got, want)
		}
	})
}
