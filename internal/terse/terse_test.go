package terse

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
)

type inner struct {
	A int `json:"a,omitempty"`
	b int
}

type named string

type sample struct {
	inner
	*Outer
	Text    string          `json:"text"`
	Skipped string          `json:"-"`
	Many    []string        `json:"many,omitempty"`
	Bytes   []byte          `json:"bytes"`
	Map     map[string]any  `json:"map"`
	Named   map[named]inner `json:"named"`
	Keys    map[netip.Addr]int
	When    time.Time
	Any     any
	Deep    *sample
	Pair    [2]int
	Float   float64
	Escaped string
}

// Outer is embedded by pointer.
type Outer struct{ Yes *bool }

// TestMarshal: what is written is read as the same value, and has no field that says nothing.
func TestMarshal(t *testing.T) {
	no := false
	for _, c := range []struct {
		v    any
		want string
	}{
		{nil, `null`},
		{sample{}, `{}`},
		{&sample{Text: "a", Skipped: "b", inner: inner{A: 1, b: 2}}, `{"a":1,"text":"a"}`},
		{sample{Outer: &Outer{Yes: &no}}, `{"Yes":false}`},
		{sample{Many: []string{}, Bytes: []byte("hi")}, `{"bytes":"aGk="}`},
		{sample{Map: map[string]any{}}, `{"map":{}}`},
		{sample{Map: map[string]any{"b": nil, "a": 0, "c": []any{1.5, "x", inner{}}}}, `{"map":{"a":0,"b":null,"c":[1.5,"x",{}]}}`},
		{sample{Named: map[named]inner{"k": {A: 2}}}, `{"named":{"k":{"a":2}}}`},
		{sample{Keys: map[netip.Addr]int{netip.MustParseAddr("::1"): 1}}, `{"Keys":{"::1":1}}`},
		{sample{Deep: &sample{Pair: [2]int{0, 1}, Any: &no}}, `{"Deep":{"Any":false,"Pair":[0,1]}}`},
		{sample{When: time.Unix(1, 0).UTC(), Float: 1e30}, `{"When":"1970-01-01T00:00:01Z","Float":1e+30}`},
		{sample{Escaped: "<\"\u2028\x01"}, `{"Escaped":"\u003c\"\u2028\u0001"}`},
		{[]any{(*sample)(nil), []string(nil), map[string]string(nil)}, `[null,null,null]`},
	} {
		if got, err := Marshal(c.v); err != nil || string(got) != c.want {
			t.Errorf("%+v: %s, %v; want %s", c.v, got, err, c.want)
		}
	}
	if _, err := Marshal(struct {
		N int `json:",string"`
	}{1}); err == nil {
		t.Error("an option that is not known here passes")
	}
	if _, err := Marshal(sample{Any: func() {}}); err == nil {
		t.Error("a function passes")
	}
}

// TestRequests: what an engine reads of a request is what it would read of one that encoding/json has encoded.
func TestRequests(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, like := range []any{container.CreateRequest{}, container.ExecCreateRequest{}, container.UpdateConfig{}, network.CreateRequest{}, volume.CreateRequest{}} {
		kind := reflect.TypeOf(like)
		for range 200 {
			v := reflect.New(kind)
			fill(r, v.Elem(), 0)
			usual, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			short, err := Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			want, got := reflect.New(kind), reflect.New(kind)
			if err := json.Unmarshal(usual, want.Interface()); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(short, got.Interface()); err != nil {
				t.Fatalf("%v: %s", err, short)
			}
			a, _ := json.Marshal(want.Interface())
			b, _ := json.Marshal(got.Interface())
			if string(a) != string(b) {
				t.Fatalf("%s is read as\n%s, not as\n%s", short, b, a)
			}
		}
	}
}

// fill sets some of a value's fields to something.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if depth > 6 || !v.CanSet() && depth > 0 {
		return
	}
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(255))})))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.0.0.0/8")))
		return
	case network.Port:
		v.Set(reflect.ValueOf(network.MustParsePort("80/tcp")))
		return
	case network.HardwareAddr:
		v.Set(reflect.ValueOf(network.HardwareAddr{2, 0, 0, 0, 0, 1}))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && r.IntN(3) == 0 {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth+1)
	case reflect.String:
		v.SetString([]string{"", "a", "none", "x<&>\u00e9"}[r.IntN(4)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.IntN(100)))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(r.IntN(100)))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, key, depth+1)
			fill(r, value, depth+1)
			v.SetMapIndex(key, value)
		}
	}
}
