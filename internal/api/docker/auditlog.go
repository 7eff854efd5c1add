package docker

import (
	"net/http"
	"os/user"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"wherry.dev/wherry/internal/audit"
)

// auditRoutes show the audit log.
type auditRoutes struct {
	log    *audit.Log
	server *Server
}

func (a *auditRoutes) add(add adder) {
	add("GET /wherry/audit", a.server.lasting(a.read))
	add("GET /wherry/audit/verify", a.verify)
}

var errNoAudit = classed(errdefs.ErrNotImplemented, "this engine keeps no audit log: audit.enabled is false in its settings")

// read answers with lines of JSON, the oldest first: since, until, user (a name, an id, or certificate:NAME), object.
func (a *auditRoutes) read(w http.ResponseWriter, r *http.Request) (err error) {
	if a.log == nil {
		return errNoAudit
	}
	q := queryOf(r)
	wanted := audit.Query{Object: strings.TrimPrefix(q.Get("object"), "/")}
	if wanted.Since, err = q.moment("since"); err != nil {
		return err
	}
	if wanted.Until, err = q.moment("until"); err != nil {
		return err
	}
	if err := whose(&wanted, q.Get("user")); err != nil {
		return err
	}
	begin(w, "application/jsonl")
	out := flusher{w}
	err = a.log.Read(r.Context(), wanted, func(line []byte) error {
		_, err := out.Write(append(line[:len(line):len(line)], '\n'))
		return err
	})
	if err != nil && r.Context().Err() == nil {
		return encode(out, map[string]string{"message": err.Error()})
	}
	return nil
}

func whose(q *audit.Query, who string) error {
	if name, ok := strings.CutPrefix(who, "certificate:"); ok {
		q.Certificate = name
		return nil
	}
	if who == "" {
		return nil
	}
	text := strings.TrimPrefix(who, "uid:")
	if u, err := user.Lookup(text); err == nil {
		text = u.Uid
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return invalid("there is no user %s on this machine: give a name, an id, or certificate:NAME", who)
	}
	uid := uint32(n)
	q.UID = &uid
	return nil
}

func (a *auditRoutes) verify(w http.ResponseWriter, r *http.Request) error {
	if a.log == nil {
		return errNoAudit
	}
	var expect audit.Mark
	if text := queryOf(r).Get("expect"); text != "" {
		seq, hash, ok := strings.Cut(text, ":")
		n, err := strconv.ParseUint(seq, 10, 64)
		if !ok || err != nil || n == 0 || len(hash) != 64 {
			return invalid("--expect %s: give NUMBER:HASH, as an earlier verify printed it", text)
		}
		expect = audit.Mark{Seq: n, Hash: hash}
	}
	report, err := a.log.Verify(r.Context(), expect)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}
