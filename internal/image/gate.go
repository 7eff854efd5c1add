package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"wherry.dev/wherry/internal/event"
	"wherry.dev/wherry/internal/evidence"
	"wherry.dev/wherry/internal/policy"
	"wherry.dev/wherry/internal/ref"
	"wherry.dev/wherry/internal/registry"
	"wherry.dev/wherry/internal/trust"
)

// What an image's first piece of content (index or manifest) is labelled with, so that it goes when the image goes: its signatures as another
// piece of content, and what was found of them.
const (
	labelEvidence = "containerd.io/gc.ref.content.signatures."
	labelVerdict  = "dev.wherry.verdict."
)

// Judgement is what the policy says of an image.
type Judgement struct {
	Image    string // as it was asked for
	Digest   digest.Digest
	Accepted bool
	Rule     string    `json:",omitempty"` // in words
	Where    string    `json:",omitempty"` // file and line of the rule
	Action   string    `json:",omitempty"` // accept, reject or signed; "" without a policy
	SignedBy []string  `json:",omitempty"`
	Why      string    `json:",omitempty"` // not accepted: the whole error
	Until    time.Time `json:",omitzero"`  // when a signature's certificate ends

	hash string // of the policy
}

// gate holds images against the policy before they are pulled and run.
type gate struct {
	st         *store
	checker    *trust.Checker
	registries *registry.Pool
	events     *event.Bus

	mu    sync.Mutex // guards what follows
	known map[passKey]Judgement
}

type passKey struct {
	ref          string
	id, manifest digest.Digest
}

// suspect is an image to be judged.
type suspect struct {
	ref    ref.Reference // the name it goes by; the zero value where it has none
	local  bool          // it was made on this machine
	parts  []ocispec.Descriptor
	client *registry.Client // with the login of whoever asks; nil: nobody's
	dry    bool             // nothing is kept, and nobody told
}

func (q *suspect) id() digest.Digest { return q.parts[0].Digest }

func (q *suspect) name() string {
	if q.ref.Path == "" {
		return q.id().String()
	}
	return q.ref.Familiar()
}

// asked is the name that a rule is looked for by. A tag beside a digest says nothing of what is meant.
func (q *suspect) asked() string {
	switch {
	case q.ref.Path == "":
		return ""
	case q.ref.Tag == "" || q.ref.Digest != "":
		return q.ref.Name()
	}
	return q.ref.Name() + ":" + q.ref.Tag
}

// Permit is an error where the policy does not let an image be run. An image that has passed costs a look into memory, and without a
// policy it is not looked at.
func Permit(ctx context.Context, s *Service, img *Image) error {
	g := s.gate
	p, err := g.policy()
	if err != nil || p == nil {
		return err
	}
	key := passKey{img.Ref, img.ID, img.Manifest.Digest}
	g.mu.Lock()
	known := g.known[key]
	g.mu.Unlock()
	if known.holds(p) {
		return nil
	}
	j, err := g.judgeLocal(in(ctx), p, img, false)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.known) > 4096 {
		clear(g.known)
	}
	g.known[key] = j
	return nil
}

// holds says whether an image that was accepted still is.
func (j *Judgement) holds(p *policy.Policy) bool {
	return j.Accepted && j.hash == p.Hash && (j.Until.IsZero() || time.Now().Before(j.Until))
}

// judgeLocal judges an image that is here, by where it came from. Where it came from several places, one that it is known by counts
// first, and otherwise any: they gave the same bytes.
func (g *gate) judgeLocal(ctx context.Context, p *policy.Policy, img *Image, dry bool) (Judgement, error) {
	parts := []ocispec.Descriptor{{Digest: img.ID}}
	if img.ID != img.Manifest.Digest {
		parts = append(parts, img.Manifest)
	} else {
		parts[0].MediaType = img.Manifest.MediaType
	}
	for i, d := range parts {
		whole, err := g.describe(ctx, d)
		if err == nil {
			parts[i] = whole
		} else if i == 0 { // a container may outlive its image's name: there is nothing to keep anything with
			dry = true
		}
	}
	return g.judgeAny(ctx, p, (provenance{g.st}).candidates(ctx, parts, img.Ref), suspect{parts: parts, dry: dry})
}

// judgeAny judges an image by any of the names that it may be judged by. Of refusals, the first is told.
func (g *gate) judgeAny(ctx context.Context, p *policy.Policy, names []candidate, like suspect) (Judgement, error) {
	parts, dry := like.parts, like.dry
	var first suspect
	var worst Judgement
	var refused error
	for i, c := range names {
		q := suspect{ref: c.ref, local: c.local, parts: parts, dry: dry}
		j, err := g.judge(ctx, p, &q)
		if err == nil {
			return j, nil
		}
		if i == 0 {
			first, worst, refused = q, j, err
		}
	}
	g.tell(&first, worst, refused)
	return worst, refused
}

// describe fills in what is not known of a manifest or index that is here.
func (g *gate) describe(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	info, err := g.st.content.Info(ctx, d.Digest)
	if err != nil {
		return d, err
	}
	d.Size = info.Size
	if d.MediaType != "" {
		return d, nil
	}
	var doc document
	_ = g.st.readJSON(ctx, d, &doc) // one that is damaged has no signature that fits
	switch {
	case doc.MediaType != "":
		d.MediaType = doc.MediaType
	case doc.Config != nil:
		d.MediaType = ocispec.MediaTypeImageManifest
	default:
		d.MediaType = ocispec.MediaTypeImageIndex
	}
	return d, nil
}

// judge holds an image against its rule.
func (g *gate) judge(ctx context.Context, p *policy.Policy, q *suspect) (Judgement, error) {
	j := Judgement{Image: q.name(), Digest: q.id(), hash: p.Hash}
	rule := p.For(q.asked())
	if q.local && p.Local.Action != policy.AsNamed {
		rule = &p.Local
	}
	j.Rule, j.Where, j.Action = rule.Name(), rule.Where(), string(rule.Action)
	refused := &trust.Refusal{Image: j.Image, Rule: rule, Why: rule.Why}
	var err error
	switch rule.Action {
	case policy.Accept:
		j.Accepted = true
		return j, nil
	case policy.Signed:
		var out trust.Outcome
		if out, err = g.signed(ctx, p, rule, q); err == nil && out.OK {
			j.Accepted, j.SignedBy, j.Until = true, out.By, out.Until
			return j, nil
		}
		if ctx.Err() != nil {
			return j, context.Cause(ctx)
		}
		refused.Why, refused.Err = out.Why, err
	}
	j.Why = refused.Error()
	return j, refused
}

// tell makes an event of a refusal.
func (g *gate) tell(q *suspect, j Judgement, err error) {
	if !q.dry && isRefusal(err) {
		g.events.Publish(events.ImageEventType, "refuse", j.Image, map[string]string{"name": j.Image, "digest": j.Digest.String(), "rule": j.Where, "reason": j.Why})
	}
}

// keyOf is the end of a label that is about a repository, or about a reference.
func keyOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// passed is what is kept of an outcome.
type passed struct {
	Hash  string
	By    []string
	Until time.Time
}

// signed finds out whether an image has its rule's signatures: from what was found before, from the signatures that lie with the image, and
// from its registry, in this order.
func (g *gate) signed(ctx context.Context, p *policy.Policy, rule *policy.Rule, q *suspect) (trust.Outcome, error) {
	if q.ref.Path == "" {
		return trust.Outcome{Why: "it has no name by which its signatures could be found"}, nil
	}
	verdict := labelVerdict + keyOf(q.ref.String()+"\n"+q.parts[len(q.parts)-1].Digest.String())
	labels := map[string]string{}
	if info, err := g.st.content.Info(ctx, q.id()); err == nil {
		labels = info.Labels
	}
	var old passed
	if json.Unmarshal([]byte(labels[verdict]), &old) == nil && old.Hash == p.Hash && (old.Until.IsZero() || time.Now().Before(old.Until)) {
		return trust.Outcome{OK: true, By: old.By, Until: old.Until}, nil
	}
	out, err := g.askKept(ctx, rule, q, labels[labelEvidence+keyOf(q.ref.Name())])
	if err == nil && !out.OK {
		kept := out
		if out, err = g.askRegistry(ctx, rule, q); err != nil && kept.Why != "" {
			err = fmt.Errorf("%s with the image, and %w", kept.Why, err)
		}
	}
	if err != nil || !out.OK || q.dry {
		return out, err
	}
	g.events.Publish(events.ImageEventType, "verify", q.name(), map[string]string{"name": q.name(), "digest": q.id().String(), "signed-by": strings.Join(out.By, ", ")})
	if b, err := json.Marshal(passed{p.Hash, out.By, out.Until}); err == nil && len(b) < 3000 {
		_ = g.st.label(ctx, q.id(), verdict, string(b)) // where it cannot be kept, on a full disk, it is found out anew
	}
	return out, nil
}

func (s *blobs) label(ctx context.Context, d digest.Digest, key, value string) error {
	if info, err := s.content.Info(ctx, d); err == nil && info.Labels[key] == value {
		return nil // a write for nothing
	}
	_, err := s.content.Update(ctx, content.Info{Digest: d, Labels: map[string]string{key: value}}, "labels."+key)
	if err != nil {
		return fmt.Errorf("note what was found of %s: %w", d, err)
	}
	return nil
}

func (q *suspect) request(signatures [][]evidence.Signature) evidence.Request {
	r := evidence.Request{Name: q.ref.Name(), Tag: q.ref.Tag}
	if q.ref.Digest != "" {
		r.Tag = ""
	}
	for i, d := range q.parts {
		r.Images = append(r.Images, evidence.Image{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Signatures: signatures[i]})
	}
	return r
}

// askKept judges by the signatures that lie with the image.
func (g *gate) askKept(ctx context.Context, rule *policy.Rule, q *suspect, at string) (trust.Outcome, error) {
	none := trust.Outcome{Why: "there is no signature"}
	d := digest.Digest(at)
	if d.Validate() != nil {
		return none, nil
	}
	info, err := g.st.content.Info(ctx, d)
	if err != nil || info.Size > 2*evidence.MaxTotal {
		return none, nil
	}
	b, err := content.ReadBlob(ctx, g.st.content, ocispec.Descriptor{Digest: d, Size: info.Size})
	var kept map[digest.Digest][]evidence.Signature
	if err != nil || json.Unmarshal(b, &kept) != nil {
		return none, nil // damaged: the registry has them
	}
	var all [][]evidence.Signature
	for _, part := range q.parts {
		all = append(all, kept[part.Digest])
	}
	return g.checker.Ask(ctx, rule, q.request(all))
}

// askRegistry fetches what the registry has of signatures, some at a time, until they suffice, and keeps them with the image then. Those of
// some that the rule wants go on to be judged with the next.
func (g *gate) askRegistry(ctx context.Context, rule *policy.Rule, q *suspect) (out trust.Outcome, err error) {
	if q.client == nil {
		q.client = g.registries.Client(ctx, q.ref, nil)
	}
	explain := func(err error) error {
		return registry.Explain("look for signatures of "+q.name(), q.ref.Domain, err)
	}
	sources := make([]*trust.Gathering, len(q.parts))
	for i, part := range q.parts {
		if sources[i], err = trust.Gather(ctx, q.client, part.Digest); err != nil {
			return out, explain(err)
		}
	}
	good := make([][]evidence.Signature, len(q.parts))
	for first, more := true, true; more; first = false {
		all := make([][]evidence.Signature, len(q.parts))
		more = false
		for i, source := range sources {
			list, others, err := source.Next(ctx)
			if err != nil {
				return out, explain(err)
			}
			all[i], more = append(slices.Clone(good[i]), list...), more || others
		}
		tried, err := g.checker.Ask(ctx, rule, q.request(all))
		if err != nil {
			return out, err
		}
		if first || tried.OK || len(tried.By) > len(out.By) { // people are told of what came nearest
			out = tried
		}
		clear(good)
		for _, at := range tried.Good {
			good[at[0]] = append(good[at[0]], all[at[0]][at[1]])
		}
		if out.OK {
			break
		}
	}
	if out.OK && !q.dry {
		kept := map[digest.Digest][]evidence.Signature{}
		for i, part := range q.parts {
			kept[part.Digest] = good[i]
		}
		g.keep(ctx, q, kept)
	}
	return out, nil
}

// keep lays signatures beside the image. Where they cannot be, on a full disk, the registry has them: that is no reason to refuse it.
func (g *gate) keep(ctx context.Context, q *suspect, signatures map[digest.Digest][]evidence.Signature) {
	ctx, done, err := g.st.lease(ctx)
	if err != nil {
		return
	}
	defer done()
	if d, err := g.st.writeBlob(ctx, "application/json", signatures); err == nil {
		_ = g.st.label(ctx, q.id(), labelEvidence+keyOf(q.ref.Name()), d.Digest.String())
	}
}

func (g *gate) policy() (*policy.Policy, error) {
	if g.checker == nil {
		return nil, nil
	}
	return g.checker.Policy()
}

// isRefusal tells what the policy says from what a registry answers.
func isRefusal(err error) bool {
	var refusal *trust.Refusal
	var unread *trust.UnreadError
	return errors.As(err, &refusal) || errors.As(err, &unread)
}
