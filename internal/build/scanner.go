package build

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/frontend/attestations"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
)

// explainScanner says of an error about the image whose program lists what is in a result, which nobody has named by himself in most cases, why
// it was asked for.
func explainScanner(err error, req any) error {
	var attrs map[string]string
	switch r := req.(type) {
	case *controlapi.SolveRequest:
		attrs = r.FrontendAttrs
	case *gatewayapi.SolveRequest: // of a client that drives the frontend itself
		attrs = r.FrontendOpt
	}
	if err == nil || strings.Contains(err.Error(), scannerHint) {
		return err
	}
	wanted, parsed := attestations.Parse(attrs)
	sbom, asked := wanted[attestations.KeyTypeSbom]
	if parsed != nil || !asked {
		return err
	}
	named := sbom["generator"]
	image, parsed := reference.ParseNormalizedNamed(named)
	if parsed != nil || !strings.Contains(err.Error(), "metadata for "+reference.TagNameOnly(image).String()) {
		return err
	}
	return fmt.Errorf(scannerHint+", %s, which cannot be had: %w: name one that can with --sbom=generator=IMAGE, or build without --sbom", named, err)
}

const scannerHint = "the program that lists what is in an image (--sbom) is itself an image"
