package forward

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/tinylib/msgp/msgp"
	"golang.org/x/sys/unix"
)

func sample() About {
	return About{FullID: "0123456789abcdef0123", Name: "web", ImageFullID: "sha256:fedcba9876543210", ImageName: "nginx:1", Command: "nginx -g x", Created: time.Unix(1e9, 0).UTC(),
		Labels: map[string]string{"team.name": "blue", "other": "x"}, Env: []string{"REGION=north", "SECRET=no"}}
}

var moment = time.Date(2026, 5, 4, 3, 2, 1, 123456789, time.UTC)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sendTo sends two messages to a new target.
func sendTo(t *testing.T, kind string, options map[string]string, messages ...Message) {
	t.Helper()
	must(t, Check(kind, options))
	target, err := Dial(kind, options, sample())
	must(t, err)
	for i := range messages {
		must(t, target.Send(&messages[i]))
	}
	must(t, target.Close())
}

// datagrams returns what comes to an address of the network, one at a time.
func datagrams(t *testing.T, network, address string) (at string, next func() []byte) {
	t.Helper()
	l, err := net.ListenPacket(network, address)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.LocalAddr().String(), func() []byte {
		t.Helper()
		b := make([]byte, 1<<17)
		must(t, l.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, _, err := l.ReadFrom(b)
		must(t, err)
		return b[:n]
	}
}

// stream returns all that comes by the first connection to an address.
func stream(t *testing.T, network, address string) (at string, all func() string) {
	t.Helper()
	l, err := net.Listen(network, address)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(c)
		got <- string(b)
	}()
	return l.Addr().String(), func() string { return <-got }
}

// TestSyslog holds each form against what its specification has.
func TestSyslog(t *testing.T) {
	host, err := os.Hostname()
	must(t, err)
	local := moment.Local().Format(time.Stamp)
	for form, want := range map[string][2]string{
		"":             {fmt.Sprintf("<30>2026-05-04T03:02:01Z %s web[%d]: out", host, os.Getpid()), "<27>"},
		"rfc3164":      {fmt.Sprintf("<30>%s %s web[%d]: out", local, host, os.Getpid()), "<27>"},
		"rfc5424":      {fmt.Sprintf("<30>1 2026-05-04T03:02:01Z %s web %d web - out", host, os.Getpid()), "<27>1 "},
		"rfc5424micro": {fmt.Sprintf("<30>1 2026-05-04T03:02:01.123456Z %s web %d web - out", host, os.Getpid()), "<27>1 "},
	} {
		messages := []Message{{Time: moment, Text: []byte("out")}, {Time: moment}, {Time: moment, Stderr: true, Text: []byte("err")}}
		options := func(address string) map[string]string {
			return map[string]string{"syslog-address": address, "syslog-format": form, "tag": "{{.Name}}"}
		}
		at, next := datagrams(t, "udp", "127.0.0.1:0")
		sendTo(t, "syslog", options("udp://"+at), messages...)
		if a, b := string(next()), string(next()); a != want[0] || !strings.HasPrefix(b, want[1]) || !strings.HasSuffix(b, "err") {
			t.Errorf("%s: %q, %q; want %q", form, a, b, want)
		}
		at, all := stream(t, "tcp", "127.0.0.1:0")
		sendTo(t, "syslog", options("tcp://"+at), messages...)
		if got := strings.Split(all(), "\n"); len(got) != 3 || got[0] != want[0] || !strings.HasPrefix(got[1], want[1]) || got[2] != "" {
			t.Errorf("%s: %q", form, got)
		}
		path := filepath.Join(t.TempDir(), "s")
		_, next = datagrams(t, "unixgram", path)
		sendTo(t, "syslog", options("unixgram://"+path), messages[:1]...)
		if got := string(next()); got != want[0] {
			t.Errorf("%s: %q", form, got)
		}
	}
	at, next := datagrams(t, "udp", "127.0.0.1:0")
	sendTo(t, "syslog", map[string]string{"syslog-address": "udp://" + at, "syslog-facility": "local7", "tag": "{{.ImageName}}/{{.Name}}/{{.ID}}/{{.ImageID}}/{{json .Name}}"}, Message{Time: moment, Text: []byte("x")})
	if got := string(next()); !strings.HasPrefix(got, "<190>") || !strings.Contains(got, " nginx:1/web/0123456789ab/fedcba987654/\"web\"[") {
		t.Errorf("%q", got)
	}
}

// TestGELF reads what is sent as its specification says, in both ways and all compressions, and in chunks.
func TestGELF(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1000) // MostText, nearly, which gzip makes small
	var noise strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&noise, "%x", i*2654435761)
	}
	check := func(b []byte, text string, level float64) {
		t.Helper()
		var got map[string]any
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		for k, v := range map[string]any{"version": "1.1", "short_message": text, "level": level, "timestamp": 1777863721.123, "_container_name": "web", "_team.name": "blue",
			"_container_id": "0123456789abcdef0123", "_image_name": "nginx:1", "_command": "nginx -g x", "_tag": "0123456789ab"} {
			if got[k] != v {
				t.Errorf("%s is %v, not %v", k, got[k], v)
			}
		}
	}
	whole := func(next func() []byte) []byte {
		t.Helper()
		first := next()
		if !bytes.HasPrefix(first, []byte{0x1e, 0x0f}) {
			return first
		}
		parts := make([][]byte, first[11])
		for i := range parts {
			if i > 0 {
				first = next()
			}
			if len(first) > gelfChunk {
				t.Errorf("a chunk of %d bytes", len(first))
			}
			parts[first[10]] = first[12:]
		}
		return bytes.Join(parts, nil)
	}
	for _, compression := range []string{"", "gzip", "zlib", "none"} {
		at, next := datagrams(t, "udp", "127.0.0.1:0")
		options := map[string]string{"gelf-address": "udp://" + at, "labels": "team.name"}
		if compression != "" {
			options["gelf-compression-type"] = compression
		}
		sendTo(t, "gelf", options, Message{Time: moment, Text: []byte(long)}, Message{Time: moment, Stderr: true, Text: []byte(noise.String())})
		for _, row := range []struct {
			text  string
			level float64
		}{{long, 6}, {noise.String(), 3}} {
			b := whole(next)
			var r io.Reader = bytes.NewReader(b)
			var err error
			switch compression {
			case "", "gzip":
				r, err = gzip.NewReader(r)
			case "zlib":
				r, err = zlib.NewReader(r)
			}
			must(t, err)
			b, err = io.ReadAll(r)
			must(t, err)
			check(b, row.text, row.level)
		}
	}
	at, all := stream(t, "tcp", "127.0.0.1:0")
	sendTo(t, "gelf", map[string]string{"gelf-address": "tcp://" + at, "labels": "team.name"}, Message{Time: moment, Text: []byte("out")}, Message{Time: moment, Stderr: true, Text: []byte("err")})
	got := strings.Split(all(), "\x00")
	ends(t, "gelf", "gelf-address")
	ends(t, "syslog", "syslog-address")
	if len(got) != 3 {
		t.Fatalf("%q", got)
	}
	check([]byte(got[0]), "out", 6)
	check([]byte(got[1]), "err", 3)
}

// ends: a message to a server that has gone is an error, and not lost in the kernel.
func ends(t *testing.T, kind, option string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	target, err := Dial(kind, map[string]string{option: "tcp://" + l.Addr().String()}, sample())
	must(t, err)
	defer target.Close()
	c, err := l.Accept()
	must(t, err, target.Send(&Message{Time: moment, Text: []byte("x")}))
	_, err = bufio.NewReader(c).ReadBytes(map[string]byte{"gelf": 0, "syslog": '\n'}[kind]) // what is left unread would be told by a reset
	must(t, err, c.Close())
	conn := map[string]func() net.Conn{"gelf": func() net.Conn { return target.(*gelf).conn }, "syslog": func() net.Conn { return target.(*syslog).conn }}[kind]()
	for deadline := time.Now().Add(10 * time.Second); ended(conn) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: the end of the connection is not seen", kind)
		}
	}
	if err = target.Send(&Message{Time: moment, Text: []byte("y")}); err == nil {
		t.Errorf("%s: the message to a server that has gone is lost", kind)
	}
}

// TestJournal reads what journald would get: fields, in the socket or in a sealed file.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer l.Close()
	c, err := read("journald", map[string]string{"labels": "team.name", "env-regex": "^REG", "tag": "{{.Name}}"}, sample())
	must(t, err)
	target, err := dialJournalAt(path, c)
	must(t, err)
	defer target.Close()
	large := bytes.Repeat([]byte("x"), 4<<20)
	for _, m := range []Message{{Time: moment, Text: []byte("out")}, {Time: moment, Stderr: true, Text: []byte("a\nb")}, {Time: moment, Text: large, Partial: &Partial{"id", 2, false}}} {
		must(t, target.Send(&m))
	}
	b, oob := make([]byte, 1<<16), make([]byte, 1<<10)
	for i, want := range []string{
		"CONTAINER_ID=0123456789ab\nCONTAINER_ID_FULL=0123456789abcdef0123\nCONTAINER_NAME=web\nCONTAINER_TAG=web\nIMAGE_NAME=nginx:1\nREGION=north\nSYSLOG_IDENTIFIER=web\nTEAM_NAME=blue\nMESSAGE=out\nPRIORITY=6\nSYSLOG_TIMESTAMP=2026-05-04T03:02:01.123456789Z\n",
		"MESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\nPRIORITY=3\n",
		"CONTAINER_PARTIAL_ID=id\nCONTAINER_PARTIAL_ORDINAL=2\nCONTAINER_PARTIAL_LAST=false\nCONTAINER_PARTIAL_MESSAGE=true\n",
	} {
		n, oobn, _, _, err := l.ReadMsgUnix(b, oob)
		must(t, err)
		got := string(b[:n])
		if i == 2 {
			rights, err := unix.ParseSocketControlMessage(oob[:oobn])
			must(t, err)
			fds, err := unix.ParseUnixRights(&rights[0])
			must(t, err)
			f := os.NewFile(uintptr(fds[0]), "fields")
			if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 || n != 0 {
				t.Errorf("seals %#x, %v", seals, err)
			}
			text, err := io.ReadAll(io.NewSectionReader(f, 0, 5<<20))
			must(t, err, f.Close())
			got = string(text)
			if !strings.Contains(got, "MESSAGE="+string(large)+"\n") {
				t.Error("the text is not whole")
			}
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q has no %q", got[:min(len(got), 400)], want)
		}
	}
	for name, want := range map[string]string{"a.b-c": "A_B_C", "_x": "X", "9lives": "LIVES", "ä": ""} {
		if got := fieldName(name); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
}

// TestFluentd reads the forward protocol and acknowledges what it has read.
func TestFluentd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	got := make(chan []any, 2)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r := msgp.NewReader(c)
		for {
			v, err := r.ReadIntf()
			if err != nil {
				close(got)
				return
			}
			list := v.([]any)
			got <- list
			ack := msgp.AppendMapHeader(nil, 1)
			ack = msgp.AppendString(msgp.AppendString(ack, "ack"), fmt.Sprint(list[3].(map[string]any)["chunk"]))
			_, _ = c.Write(ack)
		}
	}()
	sendTo(t, "fluentd", map[string]string{"fluentd-address": l.Addr().String(), "fluentd-request-ack": "true", "tag": "docker.{{.Name}}", "env": "REGION"},
		Message{Time: moment, Text: []byte("out")}, Message{Time: moment, Stderr: true, Text: []byte("piece"), Partial: &Partial{"id", 1, true}})
	for _, want := range []string{"container_id:0123456789abcdef0123 container_name:/web log:out source:stdout",
		"container_id:0123456789abcdef0123 container_name:/web log:piece partial_id:id partial_last:true partial_message:true partial_ordinal:1 source:stderr"} {
		m := <-got
		want = "map[REGION:north " + want + "]"
		if m[0] != "docker.web" || fmt.Sprint(m[1]) != fmt.Sprint(moment.Unix()) || fmt.Sprint(m[2]) != want {
			t.Errorf("%v, not %s", m, want)
		}
	}
}

// TestCheck refuses what could not be sent, when a container is made.
func TestCheck(t *testing.T) {
	for _, row := range [][4]string{
		{"syslog", "syslog-facility", "nobody", "there are kern"}, {"syslog", "syslog-format", "rfc1", "rfc5424micro"}, {"syslog", "syslog-address", "ftp://x", "begins with"},
		{"syslog", "syslog-size", "1", "unknown log opt"}, {"gelf", "", "", "gelf-address"}, {"gelf", "gelf-address", "udp://host", "HOST:PORT"}, {"journald", "journald-x", "1", "unknown log opt"},
		{"fluentd", "fluentd-address", "unix://", "PATH"}, {"fluentd", "fluentd-request-ack", "perhaps", "true or false"}, {"fluentd", "fluentd-max-retries", "-1", "number"},
		{"fluentd", "fluentd-write-timeout", "x", "time such as"}, {"fluentd", "fluentd-buffer-limit", "x", "size such as"},
		{"syslog", "tag", "{{.Nothing}}", "tag="}, {"journald", "env-regex", "(", "env-regex"},
	} {
		options := map[string]string{}
		if row[1] != "" {
			options[row[1]] = row[2]
		}
		if err := Check(row[0], options); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), row[3]) {
			t.Errorf("%v: %v", row, err)
		}
	}
	for _, kind := range Kinds() {
		if !Is(kind) || Is(kind+"x") {
			t.Error(kind)
		}
	}
	missing := regexp.MustCompile(`(?i)no such file|refused`)
	for kind, options := range map[string]map[string]string{"syslog": {"syslog-address": "unix:///no/such"}, "fluentd": {"fluentd-address": "127.0.0.1:1"}, "gelf": {"gelf-address": "tcp://127.0.0.1:1"}} {
		if _, err := Dial(kind, options, sample()); err == nil || !missing.MatchString(err.Error()) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
