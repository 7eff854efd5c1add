package docker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/audit"
	containers "wherry.dev/wherry/internal/container"
)

// What a request did goes into the audit log before the client hears of it: what was acknowledged has been written. A request whose answer goes on
// (a pull, a build, an exec) gets a second record where it ends badly.

// note adds to what the audit log says of a request. Values never are secrets, nor anything of the environment.
func note(ctx context.Context, name, value string) {
	if v := visitOf(ctx); v != nil {
		v.note(name, value)
	}
}

func (v *visit) note(name, value string) {
	if value == "" {
		return
	}
	if v.with == nil {
		v.with = map[string]string{}
	}
	v.with[name] = audit.Clip(value, mostWords)
}

// What a record has of a request's words, in bytes: who fills the log with a few requests pushes out what it had of him before. Of lists, whose later parts
// decide as much as the first, it has more.
const (
	mostWords = 300
	mostPath  = 500
	mostList  = 4000
	mostError = 1000
)

// noteList is note for a list.
func noteList(ctx context.Context, name string, values []string) {
	v := visitOf(ctx)
	if v == nil || len(values) == 0 {
		return
	}
	v.note(name, "…")
	var b strings.Builder
	for i, value := range values {
		value = audit.Clip(value, mostWords)
		if b.Len()+len(value) > mostList {
			fmt.Fprintf(&b, " … and %d more", len(values)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(value)
	}
	v.with[name] = b.String()
}

// noteObject says what a request is about, where its path does not.
func noteObject(ctx context.Context, kind, id, name string) {
	if v := visitOf(ctx); v != nil {
		v.object = &audit.Object{Type: kind, ID: id, Name: name}
	}
}

// noteMade says which container was made.
func noteMade(ctx context.Context, s *containers.Service, id string) {
	named, _ := containers.NameOf(s, id) // without its name where it has gone already
	noteObject(ctx, "container", id, named.Name)
	if v := visitOf(ctx); v != nil {
		v.mayStart(ctx, id)
	}
}

// failLate notes an error that came after the answer had begun.
func failLate(w http.ResponseWriter, err error) {
	if rw, ok := w.(*response); ok && err != nil {
		rw.late = message(err)
	}
}

// record writes a request down. It is called once for each, before its status is sent.
func (s *Server) record(r *http.Request, v *visit, w *response) {
	if s.audit == nil || v == nil || !s.auditReads && w.status != http.StatusForbidden && onlyReads(r.Method, v.path) {
		return
	}
	v.noteQuery(r.URL.Query())
	of := v.recorded(r, w.failure)
	of.With, of.Status = v.with, w.status
	seq, err := s.audit.Append(of)
	if err != nil {
		s.log.Error("a request is missing in the audit log", "method", r.Method, "path", v.path, "error", err)
	}
	w.seq = seq
}

// recordEnd is for what is known only when the request has ended.
func (s *Server) recordEnd(r *http.Request, v *visit, w *response) {
	if w.status == 0 {
		w.failure = "the client has gone before the answer"
		s.record(r, v, w)
	}
	if w.late == "" || w.seq == 0 {
		return
	}
	end := v.recorded(r, w.late)
	end.Event, end.Of = "end", w.seq
	if _, err := s.audit.Append(end); err != nil {
		s.log.Error("the end of a request is missing in the audit log", "method", r.Method, "path", v.path, "error", err)
	}
}

// recorded is a record of a request, which ended with a failure or with none.
func (v *visit) recorded(r *http.Request, failure string) audit.Record {
	out := audit.Record{Who: whoIs(v.caller), Method: audit.Clip(r.Method, mostWords), Path: audit.Clip(v.path, mostPath), Error: audit.Clip(redacted(failure), mostError)}
	if o := v.object; o != nil {
		out.Object = &audit.Object{Type: o.Type, ID: audit.Clip(o.ID, mostWords), Name: audit.Clip(o.Name, mostWords)}
	}
	return out
}

func whoIs(c *access.Caller) *audit.Who {
	if c.Certificate != nil {
		name := strings.TrimPrefix(c.ID(), "certificate:")
		return &audit.Who{Certificate: name, Serial: c.Certificate.Serial, Address: c.Address}
	}
	return &audit.Who{UID: &c.UID, GID: &c.GID, PID: c.PID, Program: audit.Clip(c.Program, mostWords)}
}

// onlyReads says that a request changes nothing.
func onlyReads(method, path string) bool {
	last := path[strings.LastIndexByte(path, '/')+1:]
	switch method {
	case http.MethodGet, http.MethodHead:
		return last != "ws"
	case http.MethodPost:
		switch last {
		case "wait", "resize", "ListWorkers", "Info", "Status", "DiskUsage", "ListenBuildHistory", "Check":
			return true
		}
	}
	return false
}

// noteQuery takes over those of a request's parameters that decide.
func (v *visit) noteQuery(q url.Values) {
	for _, name := range []string{"name", "signal", "t", "force", "v", "link", "repo", "tag", "container", "path", "fromImage", "platform", "all", "filters",
		"image", "target", "dockerfile", "networkmode", "nocache", "pull", "condition", "names", "id", "repair", "quick", "to", "dry-run", "reference", "source", "destination"} {
		v.note(name, strings.Join(q[name], " "))
	}
	for _, name := range []string{"fromSrc", "remote"} {
		v.note(name, withoutSecrets(q.Get(name)))
	}
	if v.path == "/build" {
		v.note("tag", strings.Join(q["t"], " "))
	}
}

// withoutSecrets is an address without what may stand in it: a password, or a token among its parameters.
func withoutSecrets(address string) string {
	if address == "" || address == "-" || address == ClientSession {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "(an address that cannot be read)"
	}
	u.User, u.RawQuery, u.ForceQuery = nil, "", false
	return u.String()
}

// redacted is an error's text without what stands in addresses for nobody to see.
func redacted(text string) string {
	if what, _, ok := strings.Cut(text, " environment variable: "); ok {
		return what + " environment variable"
	}
	var out strings.Builder
	for {
		at := strings.Index(text, "://")
		if at < 0 {
			out.WriteString(text)
			return out.String()
		}
		at += len("://")
		out.WriteString(text[:at])
		text = text[at:]
		end := strings.IndexAny(text, " \t\n\"'`<>")
		if end < 0 {
			end = len(text)
		}
		address := strings.TrimRight(text[:end], ":,.;)")
		rest := text[len(address):]
		host, path, slash := strings.Cut(address, "/")
		host = host[strings.LastIndexByte(host, '@')+1:]
		path, _, query := strings.Cut(path, "?")
		host, _, bare := strings.Cut(host, "?")
		out.WriteString(host)
		if slash {
			out.WriteString("/" + path)
		}
		if query || bare {
			out.WriteString("?…")
		}
		text = rest
	}
}

// noteCreate notes of a new container what decides how far it reaches. Its command is only named: passwords stand on command lines.
func noteCreate(ctx context.Context, r *container.CreateRequest) {
	h := r.HostConfig
	yes := func(name string, on bool) {
		if on {
			note(ctx, name, "true")
		}
	}
	list := func(name string, values []string) { noteList(ctx, name, values) }
	note(ctx, "image", r.Config.Image)
	note(ctx, "user", r.Config.User)
	for _, words := range [][]string{r.Config.Cmd, r.Config.Entrypoint} {
		if len(words) > 0 {
			note(ctx, "command", words[0])
		}
	}
	yes("privileged", h.Privileged)
	yes("auto-remove", h.AutoRemove)
	list("binds", h.Binds)
	list("cap-add", h.CapAdd)
	list("security-opt", h.SecurityOpt)
	list("volumes-from", h.VolumesFrom)
	note(ctx, "cgroup-parent", h.CgroupParent)
	note(ctx, "restart", string(h.RestartPolicy.Name))
	for name, mode := range map[string]string{"network": string(h.NetworkMode), "pid": string(h.PidMode), "ipc": string(h.IpcMode), "uts": string(h.UTSMode),
		"userns": string(h.UsernsMode), "cgroupns": string(h.CgroupnsMode)} {
		note(ctx, name, mode)
	}
	var mounts, devices, ports []string
	for _, m := range h.Mounts {
		if m.Type == mount.TypeBind || m.Type == mount.TypeVolume {
			mounts = append(mounts, string(m.Type)+":"+m.Source+":"+m.Target)
		}
	}
	for _, d := range h.Devices {
		devices = append(devices, d.PathOnHost)
	}
	for port, bindings := range h.PortBindings {
		for _, b := range bindings {
			ports = append(ports, publishedAt(b)+"->"+port.String())
		}
	}
	list("mounts", mounts)
	list("devices", devices)
	slices.Sort(ports)
	list("publish", ports)
}

// publishedAt is where on the host a port is published, with no address where none was asked for.
func publishedAt(b network.PortBinding) string {
	if !b.HostIP.IsValid() {
		return ":" + b.HostPort
	}
	return net.JoinHostPort(b.HostIP.String(), b.HostPort)
}

func noteExec(ctx context.Context, r *container.ExecCreateRequest) {
	if len(r.Cmd) > 0 {
		note(ctx, "command", r.Cmd[0])
	}
	note(ctx, "user", r.User)
	if r.Privileged {
		note(ctx, "privileged", "true")
	}
}

func noteUpdate(ctx context.Context, u *container.UpdateConfig) {
	for name, n := range map[string]int64{"memory": u.Memory, "memory-swap": u.MemorySwap, "nano-cpus": u.NanoCPUs, "cpu-shares": u.CPUShares, "cpu-quota": u.CPUQuota} {
		if n != 0 {
			note(ctx, name, strconv.FormatInt(n, 10))
		}
	}
	note(ctx, "cpuset-cpus", u.CpusetCpus)
	note(ctx, "restart", string(u.RestartPolicy.Name))
}
