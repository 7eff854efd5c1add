package buildclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/lint"

	"wherry.dev/wherry/internal/buildopt"
)

// ask has the frontend answer a question instead of building.
func (j *job) ask(q buildopt.Question) gateway.BuildFunc {
	return func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		req := j.request()
		req.FrontendOpt = maps.Clone(req.FrontendOpt)
		req.FrontendOpt["requestid"] = q.Method
		req.FrontendOpt["frontend.caps"] = "moby.buildkit.frontend.subrequests"
		res, err := g.Solve(ctx, req)
		if err != nil {
			return nil, err
		}
		j.answer = res.Metadata
		return gateway.NewResult(), nil
	}
}

// answer prints what the frontend said; a check that found something ends with 1.
func (c *Client) answer(q buildopt.Question, said map[string][]byte) error {
	text := said["result.txt"]
	if q.JSON {
		text = said["result.json"]
	}
	if text == nil {
		return fmt.Errorf("this Dockerfile's syntax cannot answer %s", strings.TrimPrefix(q.Method, "frontend."))
	}
	if q.Method == "frontend.lint" && !q.JSON {
		text = append(text, checkError(said["result.json"])...)
		if len(bytes.TrimSpace(text)) == 0 {
			text = []byte("Check complete, no warnings found.")
		}
	}
	if _, err := fmt.Fprintf(c.Out, "%s\n", bytes.TrimRight(bytes.TrimLeft(text, "\n"), "\n")); err != nil {
		return err
	}
	if code := said["result.statuscode"]; len(code) > 0 && string(code) != "0" {
		return &ExitError{Code: 1}
	}
	return nil
}

// checkError is what kept a check from reading on, which is not a warning.
func checkError(result []byte) []byte {
	var r lint.LintResults
	if json.Unmarshal(result, &r) != nil || r.Error == nil || int(r.Error.Location.SourceIndex) >= len(r.Sources) {
		return nil
	}
	var b bytes.Buffer
	r.PrintErrorTo(&b, nil)
	return b.Bytes()
}
