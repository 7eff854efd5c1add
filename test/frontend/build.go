package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func build(ctx context.Context, c client.Client) (*client.Result, error) {
	ui, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	given, err := ui.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return nil, err
	}
	st := llb.Scratch()
	for line := range strings.Lines(string(given.Data)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if st, err = step(st, line); err != nil {
			return nil, err
		}
	}
	def, err := st.Marshal(ctx, llb.LinuxAmd64)
	if err != nil {
		return nil, err
	}
	res, err := c.Solve(ctx, client.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	config.OS, config.Architecture, config.RootFS.Type = "linux", "amd64", "layers"
	config.Config.Labels = map[string]string{"by": "frontend"}
	text, err := json.Marshal(config)
	res.AddMeta(exptypes.ExporterImageConfigKey, text)
	return res, err
}

func step(st llb.State, line string) (llb.State, error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "file":
		name, text, _ := strings.Cut(rest, " ")
		return st.File(llb.Mkfile("/"+name, 0o644, []byte(text+"\n"))), nil
	case "run":
		run := llb.Image("busybox:1").Run(llb.Shlexf("sh -c %q", rest))
		return run.AddMount("/out", st), nil
	case "self":
		status, err := os.ReadFile("/proc/self/status")
		ids, err2 := os.ReadFile("/proc/self/uid_map")
		return st.File(llb.Mkfile("/self", 0o644, append(status, ids...))), errors.Join(err, err2)
	case "die":
		fmt.Fprintln(os.Stderr, "these are its last words")
		os.Exit(3)
	}
	return st, fmt.Errorf("no such word: %s", word)
}
