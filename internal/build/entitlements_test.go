package build

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/buildkit/util/entitlements"

	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"wherry.dev/wherry/internal/settings"
)

// TestRightsNameWhoHasToAllowThem holds the explanation against what BuildKit itself says.
func TestRightsNameWhoHasToAllowThem(t *testing.T) {
	both := settings.Builds{Entitlements: settings.Entitlements()}
	_, granted := entitlements.WhiteList([]entitlements.Entitlement{"security.insecure"}, []entitlements.Entitlement{})
	asked := entitlements.Set{}.Check(entitlements.Values{SecurityInsecure: true})
	host := entitlements.Set{}.Check(entitlements.Values{NetworkHost: true})
	for _, row := range []struct {
		err  error
		s    settings.Builds
		want string
	}{
		{granted, settings.Default().Builds, "both the client (--allow security.insecure) and the engine's settings (builds.entitlements) have to; the settings do not"},
		{asked, both, "(--allow security.insecure) and the engine's settings (builds.entitlements) have to; the client does not"},
		{asked, settings.Default().Builds, "have to; neither does"},
		{host, settings.Default().Builds, "(--allow network.host) and the engine's settings (builds.entitlements) have to; the client does not"},
	} {
		err := explainRights(fmt.Errorf("load: %w", row.err), row.s)
		if !errors.Is(err, row.err) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v, want %s", err, row.want)
		}
		if again := explainRights(err, row.s); again.Error() != err.Error() {
			t.Errorf("explained twice: %v", again)
		}
	}
	if other := errors.New("something else"); explainRights(other, both) != other {
		t.Error("an error that is not about rights was explained")
	}
}

// TestWhatAFrontendSaysIsBounded: of a frontend that ends without an answer, the end of what it said is told.
func TestWhatAFrontendSaysIsBounded(t *testing.T) {
	w := &lastWords{}
	for _, part := range []string{strings.Repeat("a", 3*wordsLimit), "b", strings.Repeat("c", 10) + "\n"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	exit := &gatewayapi.ExitError{ExitCode: 3}
	err := w.explain("x:1", exit)
	if !errors.Is(err, exit) || !strings.HasSuffix(err.Error(), "abcccccccccc") || len(err.Error()) > wordsLimit+200 || !strings.Contains(err.Error(), "frontend x:1") {
		t.Errorf("%d bytes: %v", len(err.Error()), err)
	}
	if other := errors.New("its own answer"); w.explain("x:1", other) != other {
		t.Error("an answer of the frontend's was explained")
	}
}
