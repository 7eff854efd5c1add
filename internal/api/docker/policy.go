package docker

import (
	"net/http"

	images "wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/policy"
)

// PolicyRule is a rule of a policy as GET /wherry/policy tells it.
type PolicyRule struct {
	Scope   string // "" for the default, "local" for images made on this machine
	Action  string
	Line    int      `json:",omitempty"`
	Need    int      `json:",omitempty"` // how many of Signers
	Signers []string `json:",omitempty"` // in words
	Why     string   `json:",omitempty"` // why the file cannot be followed, of a rule that rejects for that
}

// Policy is the answer to GET /wherry/policy.
type Policy struct {
	File  string
	Hash  string
	Rules []PolicyRule // the default and the local one first
}

// policy answers GET /wherry/policy[?policy=FILE].
func (i *imageRoutes) policy(w http.ResponseWriter, r *http.Request) error {
	p, err := images.PolicyOf(i.s, queryOf(r).Get("policy"))
	if err != nil {
		return err
	}
	out := Policy{File: p.File, Hash: p.Hash}
	for _, rule := range append([]policy.Rule{p.Default, p.Local}, p.Rules...) {
		shown := PolicyRule{Scope: rule.Scope, Action: string(rule.Action), Line: rule.Line, Need: rule.Need, Why: rule.Why}
		for _, s := range rule.Signers {
			shown.Signers = append(shown.Signers, s.String())
		}
		out.Rules = append(out.Rules, shown)
	}
	return writeJSON(w, http.StatusOK, out)
}

// policyCheck answers GET /wherry/policy/check?image=…[&as=NAME][&policy=FILE][&registry=1][&platform=…].
func (i *imageRoutes) policyCheck(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	platform, err := q.platform()
	if err != nil {
		return err
	}
	if q.Get("image") == "" {
		return invalid("no image is named: give ?image=")
	}
	j, err := images.JudgeByPolicy(r.Context(), i.s, q.Get("image"), images.JudgeOptions{
		Policy: q.Get("policy"), As: q.Get("as"), Registry: q.yes("registry"), Platform: platform, Auth: auth,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, j)
}
