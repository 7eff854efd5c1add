package access

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func certificate(cn string, names ...string) *Caller {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: cn}, DNSNames: names, SerialNumber: big.NewInt(255)}
	c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/" + cn}}
	return OfCertificate(c, "192.0.2.7:1")
}

func TestFirstRuleThatMatchesHolds(t *testing.T) {
	rules, err := Parse("a.toml", []byte(`
default = "read-only"
[[rule]]
uid = 1001
may = "own"
[[rule]]
gid = 200
may = "all"
[[rule]]
certificate = "ci.example"
may = "own"
[[rule]]
certificate = "spiffe://example/admin"
may = "all"
[[rule]]
containers = true
may = "none"
[[rule]]
user = "root"
may = "all"
`))
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name string
		c    *Caller
		want Right
		why  string
	}{
		{"root", &Caller{UID: 0}, All, "root"},
		{"a user", &Caller{UID: 1001, GID: 200}, Own, "a.toml:3 gives uid 1001 the right own"},
		{"by first group", &Caller{UID: 1002, GID: 200}, All, "a.toml:6"},
		{"by another group", &Caller{UID: 1002, GID: 100, Groups: []uint32{5, 200}}, All, "a.toml:6"},
		{"nobody named", &Caller{UID: 1003, GID: 100}, ReadOnly, "a.toml gives the right read-only to whom it does not name"},
		{"a certificate's name", certificate("ci.example"), Own, "a.toml:9"},
		{"one of its other names", certificate("x", "ci.example"), Own, "a.toml:9"},
		{"its URI", certificate("admin"), All, "a.toml:12"},
		{"a name that only begins so", certificate("ci.example.evil"), ReadOnly, ""},
		{"a container", &Caller{UID: containerIDs + 33, Contained: true}, None, "a.toml:15"},
		{"a container with a person's id", &Caller{UID: containerIDs + 7, GID: 200, Groups: []uint32{200}, Contained: true}, None, "a.toml:15"},
		{"a person with an id as containers have", &Caller{UID: containerIDs + 33}, ReadOnly, "whom it does not name"},
		{"a certificate named as a user", certificate("root"), ReadOnly, ""},
	}
	for _, row := range rows {
		if got, why := rules.Of(row.c); got != row.want || !strings.Contains(why, row.why) {
			t.Errorf("%s: %v (%s), want %v", row.name, got, why, row.want)
		}
	}
	if all := strings.Join(rules.AllOf(), ", "); all != "gid 200, certificate spiffe://example/admin, user root" {
		t.Errorf("who may all: %s", all)
	}
}

func TestWithoutRules(t *testing.T) {
	for _, rules := range []*Rules{nil, Without(-1), Without(77)} {
		for _, c := range []*Caller{{UID: 0}, {UID: containerIDs, Contained: true}, certificate("x")} {
			if got, _ := rules.Of(c); got != All {
				t.Errorf("%+v: %v", c, got)
			}
		}
		for _, uid := range []uint32{1000, containerIDs} {
			if got, _ := rules.Of(&Caller{UID: uid, GID: uid}); got != None {
				t.Errorf("user %d: %v", uid, got)
			}
		}
	}
	if got, _ := Without(77).Of(&Caller{UID: 1000, GID: 1000, Groups: []uint32{77}}); got != All {
		t.Errorf("a member of the socket's group: %v", got)
	}
}

func TestCallersHaveNames(t *testing.T) {
	for want, c := range map[string]*Caller{
		"uid:1000": {UID: 1000}, "certificate:ci": certificate("ci", "other"), "certificate:dns.example": certificate("", "dns.example"),
	} {
		if got := c.ID(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	bare := OfCertificate(&x509.Certificate{SerialNumber: big.NewInt(255)}, "")
	if bare.ID() != "certificate:serial ff" || bare.Engine() || bare.Contained || bare.In(^uint32(0)) {
		t.Errorf("%s %v %v", bare.ID(), bare.Engine(), bare.Contained)
	}
}

func TestMistakesHaveLines(t *testing.T) {
	rows := []struct{ text, want string }{
		{"default = \"some\"", `a.toml:1: default: "some" is none of none, read-only, own, all`},
		{"\n[[rule]]\nuid = 1\nmay = \"most\"", `a.toml:4: may: "most" is none of`},
		{"[[rule]]\nuid = 1", "a.toml:1: a rule says what its callers may"},
		{"[[rule]]\nmay = \"all\"", "a.toml:1: a rule names one of user, uid,"},
		{"[[rule]]\nuid = 1\ngid = 2\nmay = \"all\"", "a.toml:1: a rule names one of user, uid, group, gid, certificate, containers; this one 2"},
		{"[[rule]]\nmay = \"all\"\nuser = \"no-such-user\"", "a.toml:3: there is no user no-such-user"},
		{"[[rule]]\nmay = \"all\"\ngroup = \"no-such-group\"", "a.toml:3: there is no group no-such-group"},
		{"[[rule]]\nuid = -1\nmay = \"all\"", "a.toml:2: -1 is no id"},
		{"[[rule]]\nuid = 0\nmay = \"own\"", "a.toml:3: root may everything"},
		{"[[rule]]\ncontainers = false\nmay = \"all\"", "a.toml:2: containers: write true"},
		{"[[rule]]\ncertificate = \"\"\nmay = \"all\"", "a.toml:2: certificate: give the name"},
		{"[[rules]]\nuid = 1\nmay = \"all\"", "a.toml:1: rules: there is no such key"},
		{"[[rule]]\nuid = 1\nmight = \"all\"", "a.toml:3: rule.might: there is no such key"},
		{"[[rule]]\nuid = \"1\"\nmay = \"all\"", "a.toml:2: "},
		{"[[rule]\n", "a.toml:1: "},
		{"rule = [{uid = 1, may = \"x\"}]", "a.toml:1: may: "},
		{"[[rule]]\nuid = 1\nmay = \"x\"\n[[rule]]\nuid = 2\nmay = \"y\"", "a.toml:6: may: \"y\""},
	}
	for _, row := range rows {
		rules, err := Parse("a.toml", []byte(row.text))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %q (%+v)", row.text, err, row.want, rules)
		}
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.toml")
	if _, err := Read(path, -1); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a named file that is not there: %v", err)
	}
	if err := os.WriteFile(path, []byte("[[rule]]\nuid = 7\nmay = \"all\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rules, err := Read(path, -1)
	if err != nil || len(rules.List) != 1 {
		t.Fatalf("%+v %v", rules, err)
	}
	if got, _ := rules.Of(&Caller{UID: containerIDs, Contained: true}); got != None {
		t.Errorf("with a file, whom it does not name has no right: %v", got)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, -1); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a file that anybody may write: %v", err)
	}
	if err := errors.Join(os.Chmod(path, 0o644), os.Chown(path, 2001, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, -1); err == nil || !strings.Contains(err.Error(), "it is user 2001's") {
		t.Errorf("a file of a user's own: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("default = \"all\"\n[[rule]]\nuid = 1\nmay = \"own\"\n")
	f.Add("rule = [{uid = 1, may = \"x\"}, {}]")
	f.Add("[[rule]]\n[[rule.x]]\n")
	f.Add("rule = [1]")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := Parse("f", []byte(text))
		if err == nil {
			rules.Of(&Caller{UID: 5})
		}
	})
}

// TestContainersOwnByTheirName: ids of one container are another's afterwards, and a person's of a directory service may be the same.
func TestContainersOwnByTheirName(t *testing.T) {
	rules, err := Parse("a.toml", []byte("default = \"own\"\n[[rule]]\nuid = 268435489\nmay = \"all\"\n[[rule]]\ngid = 268435489\nmay = \"all\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	one := &Caller{UID: containerIDs + 33, GID: containerIDs + 33, Contained: true, Container: "8f3a"}
	next := &Caller{UID: containerIDs + 33, GID: containerIDs + 33, Contained: true, Container: "c001"}
	if one.ID() != "container:8f3a" || next.ID() != "container:c001" {
		t.Errorf("%s, %s", one.ID(), next.ID())
	}
	if got, why := rules.Of(one); got != Own {
		t.Errorf("a container has the right of the person with its number: %v, %s", got, why)
	}
	if got, why := rules.Of(&Caller{UID: containerIDs + 33, Contained: true}); got != None || !strings.Contains(why, "none of this engine's") {
		t.Errorf("a container that nobody knows: %v, %s", got, why)
	}
	if got, _ := rules.Of(&Caller{UID: containerIDs + 33}); got != All {
		t.Errorf("the person: %v", got)
	}
}
