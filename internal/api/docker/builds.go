package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
)

// Builder is what builds images.
type Builder interface {
	// ServeHTTP speaks BuildKit's own protocol, on HTTP/2 and on connections that it takes over.
	http.Handler
	Build(context.Context, BuildRequest, func(BuildMessage)) (id string, err error)
	Cancel(id string)
	Usage(context.Context) ([]build.CacheRecord, error)
	Prune(context.Context, PruneRequest) (build.CachePruneReport, error)
}

// ClientSession is the Remote of a build whose context comes over the client's session.
const ClientSession = "client-session"

// BuildRequest is what POST /build asks for.
type BuildRequest struct {
	ID      string    // by which it is cancelled; "": it ends with its request
	Context io.Reader // an archive, plain or compressed, where Remote is ""
	Remote  string    // an address of an archive, a Dockerfile or a git repository

	Dockerfile   string // its path in the context; "": Dockerfile
	Tags         []string
	Args         map[string]*string
	Labels       map[string]string
	Target       string
	Platform     string
	Network      string
	NoCache      bool
	Pull         bool
	CacheFrom    []string
	ExtraHosts   []string
	CgroupParent string
	Outputs      []BuildOutput // none: the image store

	Memory, MemorySwap, ShmSize    int64
	CPUShares, CPUPeriod, CPUQuota int64
	CPUSetCPUs, CPUSetMems         string
	Ulimits                        []*units.Ulimit

	Quiet   bool
	Traces  bool   // progress in BuildKit's messages
	Session string // of the client; "": it has none
	Logins  map[string]registry.AuthConfig
}

// BuildOutput is where a result goes.
type BuildOutput struct {
	Type  string
	Attrs map[string]string
}

// BuildMessage is one line of a build's progress.
type BuildMessage struct {
	ID, Stream string
	Aux        any
}

// PruneRequest says what of the build cache goes.
type PruneRequest struct {
	None                   bool     // nothing meets the filters
	Filters                []string // BuildKit's
	All                    bool
	Older                  time.Duration // only what was not used for so long
	Reserved, Max, MinFree int64         // bytes
}

type buildRoutes struct {
	b      Builder
	server *Server
}

func (b *buildRoutes) add(add adder) {
	if b.b == nil {
		b.absent(add)
		return
	}
	add("POST /build", b.build)
	add("POST /build/cancel", b.cancel)
	add("POST /build/prune", b.prune)
	for _, p := range []string{"POST /session", "POST /grpc"} {
		add(p, b.takeOver)
	}
}

// checkUpgrade wants what BuildKit's protocol begins with.
func checkUpgrade(r *http.Request) error {
	switch proto := r.Header.Get("Upgrade"); {
	case proto == "":
		return invalid("no upgrade proto in request: %s takes the connection over for h2c", r.URL.Path)
	case !strings.EqualFold(proto, "h2c"):
		return invalid("protocol %s not supported: h2c is", proto)
	}
	return nil
}

// absent is for an engine without a builder: nothing is built, so the cache is empty, which `docker system prune` asks for.
func (b *buildRoutes) absent(add adder) {
	for _, p := range []string{"POST /build", "POST /build/cancel", "POST /session", "POST /grpc"} {
		add(p, func(http.ResponseWriter, *http.Request) error {
			return classed(errdefs.ErrNotImplemented, "this engine has no builder: build elsewhere, then pull or load the image")
		})
	}
	add("POST /build/prune", func(w http.ResponseWriter, r *http.Request) error {
		return writeJSON(w, http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
	})
}

// isBuildKit tells BuildKit's own protocol from Docker's API.
func isBuildKit(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// takeOver hands the connection to the builder. Close ends it.
func (b *buildRoutes) takeOver(w http.ResponseWriter, r *http.Request) error {
	if err := checkUpgrade(r); err != nil {
		return err
	}
	given := &givenConn{ResponseWriter: w, server: b.server}
	defer given.done()
	b.b.ServeHTTP(given, r)
	return nil
}

// givenConn notes the connection that a handler takes over.
type givenConn struct {
	http.ResponseWriter
	server *Server
	conn   net.Conn
}

func (g *givenConn) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := g.ResponseWriter.(http.Hijacker).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	g.server.adopt(conn)
	g.conn = conn
	return conn, rw, nil
}

func (g *givenConn) done() {
	if g.conn != nil {
		g.server.drop(g.conn)
	}
}

func (b *buildRoutes) build(w http.ResponseWriter, r *http.Request) error {
	q, err := buildRequest(r)
	if err != nil {
		return err
	}
	q.Context = r.Body
	if q.Session == "" && q.Remote == ClientSession {
		return invalid("a context from the client's session needs the session's id")
	}
	m := &messages{w: w}
	_, err = b.b.Build(r.Context(), q, func(msg BuildMessage) {
		m.write(streamMessage{Message: jsonstream.Message{ID: msg.ID, Stream: msg.Stream, Aux: rawJSON(msg.Aux)}})
	})
	return m.end(err)
}

// buildRequest reads the query of POST /build.
func buildRequest(r *http.Request) (BuildRequest, error) {
	q := queryOf(r)
	out := BuildRequest{ID: q.Get("buildid"), Remote: q.Get("remote"), Dockerfile: q.Get("dockerfile"), Tags: q.Values["t"], Target: q.Get("target"),
		Platform: q.Get("platform"), Network: q.Get("networkmode"), NoCache: q.yes("nocache"), Pull: q.yes("pull"), CgroupParent: q.Get("cgroupparent"),
		CPUSetCPUs: q.Get("cpusetcpus"), CPUSetMems: q.Get("cpusetmems"), Quiet: q.yes("q"), Session: q.Get("session"), Traces: q.Get("version") == "2",
		ExtraHosts: q.Values["extrahosts"]}
	for p := range strings.SplitSeq(out.Platform, ",") {
		if _, err := parsePlatform(p); err != nil {
			return out, err
		}
	}
	if q.yes("squash") {
		return out, invalid("squash: this engine keeps a build's layers apart; a multi-stage build with COPY --from has one layer too")
	}
	if v := q.Get("version"); v != "" && v != "1" && v != "2" {
		return out, invalid("invalid version %q: builders 1 and 2 are there", v)
	}
	if list := q.Get("extrahosts"); strings.HasPrefix(list, "[") {
		out.ExtraHosts = nil
		if err := json.Unmarshal([]byte(list), &out.ExtraHosts); err != nil {
			return out, invalid("query parameter extrahosts: %v", err)
		}
	}
	for name, into := range map[string]any{"buildargs": &out.Args, "labels": &out.Labels, "cachefrom": &out.CacheFrom, "outputs": &out.Outputs, "ulimits": &out.Ulimits} {
		if text := q.Get(name); text != "" {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				return out, invalid("query parameter %s: %v", name, err)
			}
		}
	}
	for name, into := range map[string]*int64{"memory": &out.Memory, "memswap": &out.MemorySwap, "shmsize": &out.ShmSize, "cpushares": &out.CPUShares,
		"cpuperiod": &out.CPUPeriod, "cpuquota": &out.CPUQuota} {
		if text := q.Get(name); text != "" {
			var err error
			if *into, err = strconv.ParseInt(text, 10, 64); err != nil {
				return out, invalid("query parameter %s=%q is not a number", name, text)
			}
		}
	}
	var err error
	out.Logins, err = parseAuths(r.Header.Get("X-Registry-Config"))
	return out, err
}

func (b *buildRoutes) cancel(w http.ResponseWriter, r *http.Request) error {
	id := queryOf(r).Get("id")
	if id == "" {
		return invalid("build ID not provided: give the buildid of the build in id")
	}
	b.b.Cancel(id)
	return noContent(w)
}

func (b *buildRoutes) prune(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	p := PruneRequest{All: q.yes("all")}
	for name, into := range map[string]*int64{"keep-storage": &p.Reserved, "reserved-space": &p.Reserved, "max-used-space": &p.Max, "min-free-space": &p.MinFree} {
		if text := q.Get(name); text != "" {
			var err error
			if *into, err = strconv.ParseInt(text, 10, 64); err != nil {
				return invalid("query parameter %s=%q is not a number of bytes", name, text)
			}
		}
	}
	filters, err := q.filters()
	if err != nil {
		return err
	}
	for name, values := range filters {
		for v := range values {
			if err := p.filter(name, v); err != nil {
				return err
			}
		}
	}
	if p.None {
		return writeJSON(w, http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
	}
	report, err := b.b.Prune(r.Context(), p)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// filter takes one of Docker's filters over into BuildKit's words.
func (p *PruneRequest) filter(name, value string) error {
	switch name {
	case "until", "unused-for":
		d, err := time.ParseDuration(value)
		if err != nil {
			return invalid("filter %s=%s: give a time such as 24h: %v", name, value, err)
		}
		p.Older = d
	case "id", "parent", "type", "description", "inuse", "shared", "private":
		word := name
		if word == "id" {
			word = "id~"
		}
		if word == "inuse" || word == "shared" || word == "private" {
			p.Filters = append(p.Filters, word)
			return nil
		}
		p.Filters = append(p.Filters, word+"="+strconv.Quote(value))
	case "label": // of `system prune`, which asks everything by the same filters: what builds leave has no labels
		p.None = true
	case "label!":
	default:
		return invalid("invalid filter '%s': there are until, unused-for, id, parent, type, description, inuse, shared and private", name)
	}
	return nil
}
