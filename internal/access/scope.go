package access

import "context"

// OwnerAttribute is how events are published with the owner of what they are about; who hears of events never sees it.
const OwnerAttribute = "dev.wherry.owner"

// Scope is for whom something is done, and how far that reaches: what is made belongs to Owner, and where Limited is set nothing of others is seen
// or touched. The zero value is the engine itself, which sees everything and owns nothing.
type Scope struct {
	Owner   string // Caller.ID
	Limited bool
}

type scopeKey struct{}

// With gives what is done with ctx a scope.
func With(ctx context.Context, s Scope) context.Context { return context.WithValue(ctx, scopeKey{}, s) }

// ScopeOf is the scope of what is done with ctx.
func ScopeOf(ctx context.Context) Scope {
	s, _ := ctx.Value(scopeKey{}).(Scope)
	return s
}

// Sees says that what belongs to owner may be seen and touched.
func (s Scope) Sees(owner string) bool { return !s.Limited || owner != "" && owner == s.Owner }
