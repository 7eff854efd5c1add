package image

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func TestChangeInstructions(t *testing.T) {
	for _, row := range []struct {
		changes []string
		want    string // what differs in JSON
	}{
		{[]string{"CMD echo hi"}, `{"Env":["PATH=/bin","V=1"],"Cmd":["/bin/sh","-c","echo hi"],"Entrypoint":["e"],"WorkingDir":"/w"}`},
		{[]string{`cmd ["a", "b"]`}, `{"Cmd":["a","b"],"Entrypoint":["e"]}`},
		{[]string{`ENTRYPOINT ["x"]`}, `{"Cmd":null,"Entrypoint":["x"]}`},
		{[]string{`ENTRYPOINT ["x"]`, `CMD ["y"]`}, `{"Cmd":["y"],"Entrypoint":["x"]}`},
		{[]string{`CMD ["y"]`, `ENTRYPOINT ["x"]`}, `{"Cmd":["y"],"Entrypoint":["x"]}`},
		{[]string{`ENV A=1 B="two words" C=a\ b D='$V' E=$V-${V}x F="q\"q" G=`}, `{"Env":["PATH=/bin","V=1","A=1","B=two words","C=a b","D=$V","E=1-1x","F=q\"q","G="]}`},
		{[]string{"ENV V old way  of it"}, `{"Env":["PATH=/bin","V=old way  of it"]}`},
		{[]string{"ENV N=1 PATH=/x"}, `{"Env":["PATH=/x","V=1","N=1"]}`},
		{[]string{"ENV PATH=/x:$PATH", "ENV PATH=$PATH:/y"}, `{"Env":["PATH=/x:/bin:/y","V=1"]}`},
		{[]string{`LABEL a=b "c d"="e f" empty=`}, `{"Labels":{"a":"b","c d":"e f","empty":""}}`},
		{[]string{"EXPOSE 80 53/UDP 8000-8002"}, `{"ExposedPorts":{"80/tcp":{},"53/udp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}}`},
		{[]string{`VOLUME ["/a b", "/c"]`, "VOLUME /d /e"}, `{"Volumes":{"/a b":{},"/c":{},"/d":{},"/e":{}}}`},
		{[]string{"USER 5:6\nWORKDIR sub\n# a comment\n\nSTOPSIGNAL SIGINT"}, `{"User":"5:6","WorkingDir":"/w/sub","StopSignal":"SIGINT"}`},
		{[]string{"WORKDIR /abs/../x"}, `{"WorkingDir":"/x"}`},
		{[]string{"ONBUILD RUN make"}, `{"OnBuild":["RUN make"]}`},
		{[]string{"HEALTHCHECK --interval=3s --retries=2 CMD true || false"}, `{"Healthcheck":{"Test":["CMD-SHELL","true || false"],"Interval":3000000000,"Retries":2}}`},
		{[]string{`HEALTHCHECK CMD ["true"]`}, `{"Healthcheck":{"Test":["CMD","true"]}}`},
		{[]string{"HEALTHCHECK NONE"}, `{"Healthcheck":{"Test":["NONE"]}}`},
	} {
		var c dockerspec.DockerOCIImageConfig
		c.Env, c.Cmd, c.Entrypoint, c.WorkingDir = []string{"PATH=/bin", "V=1"}, []string{"c"}, []string{"e"}, "/w"
		if err := applyChanges(&c, row.changes); err != nil {
			t.Errorf("%q: %v", row.changes, err)
			continue
		}
		var got, want map[string]json.RawMessage
		b, err := json.Marshal(c)
		if err != nil || json.Unmarshal(b, &got) != nil || json.Unmarshal([]byte(row.want), &want) != nil {
			t.Fatalf("%q: %v", row.changes, err)
		}
		for key, value := range want {
			is := string(got[key])
			if is == "" {
				is = "null"
			}
			if compact(t, is) != compact(t, string(value)) {
				t.Errorf("%q: %s is %s, want %s", row.changes, key, is, value)
			}
		}
	}
	for change, text := range map[string]string{
		"RUN x": "RUN is not a valid change command", "ENV": "needs an argument", "ENV A": "write KEY=VALUE", "ENV A=1 B": "write KEY=VALUE",
		`ENV A="x`: "not closed", "EXPOSE x": "EXPOSE x", "EXPOSE 9-8": "9-8", "EXPOSE 80/icmp": "icmp", "EXPOSE 70000": "70000",
		"USER a b": "one argument", "STOPSIGNAL FOO": "invalid signal: FOO", "STOPSIGNAL 99": "invalid signal: 99", "ONBUILD FROM x": "ONBUILD trigger", "HEALTHCHECK --often CMD x": "unknown flag", "HEALTHCHECK --interval=1us CMD x": "millisecond",
		"HEALTHCHECK CMD": "write NONE", "HEALTHCHECK --retries=-1 CMD x": "retries", `VOLUME [""]`: "empty path",
	} {
		var c dockerspec.DockerOCIImageConfig
		if err := applyChanges(&c, []string{change}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", change, err)
		}
	}
}

// compact makes texts of the same JSON equal.
func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzChanges(f *testing.F) {
	for _, s := range []string{`ENV A="b\" $x" ${`, "HEALTHCHECK --interval=1s CMD [", "EXPOSE 1-65535/udp", `LABEL "a`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var c dockerspec.DockerOCIImageConfig
		if err := applyChanges(&c, []string{s}); err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", s, err)
		}
	})
}
