package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"wherry.dev/wherry/internal/version"
)

// versions are those of the client and, if it answers, of the engine.
type versions struct {
	Client clientVersion
	Server *system.VersionResponse
}

type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GoVersion         string
	Os, Arch          string
	Context           string
}

func thisClient() clientVersion {
	return clientVersion{
		Version: version.Version, APIVersion: version.API, DefaultAPIVersion: version.API, GoVersion: runtime.Version(),
		Os: runtime.GOOS, Arch: runtime.GOARCH, Context: "default",
	}
}

func versionCommand(app *App) *cobra.Command {
	var format string
	c := &cobra.Command{Use: "version [OPTIONS]", RunE: func(cmd *cobra.Command, _ []string) error {
		v := versions{Client: thisClient()}
		cl, err := app.Client()
		if err == nil {
			var answer system.VersionResponse
			if err = cl.Get(cmd.Context(), "/version", nil, &answer); err == nil {
				v.Server = &answer
				for i := range answer.Components {
					if d := answer.Components[i].Details; d["BuildTime"] != "" {
						d["BuildTime"] = buildTime(d["BuildTime"])
					}
				}
			}
		}
		if printed := printObject(app.Out, format, v, func(w io.Writer) error { return printVersions(w, v) }); printed != nil {
			return cmp.Or(err, printed)
		}
		return err
	}}
	formatFlag(c, &format, "f")
	return c
}

func buildTime(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return s
	}
	return t.Format(time.ANSIC)
}

func printVersions(w io.Writer, v versions) error {
	var b strings.Builder
	b.WriteString("Client:\n")
	lines(&b, " ", [][2]string{
		{"Version", v.Client.Version}, {"API version", v.Client.APIVersion}, {"Go version", v.Client.GoVersion},
		{"OS/Arch", v.Client.Os + "/" + v.Client.Arch}, {"Context", v.Client.Context},
	})
	if v.Server != nil {
		fmt.Fprintf(&b, "\nServer: %s\n", v.Server.Platform.Name)
		for _, c := range v.Server.Components {
			fmt.Fprintf(&b, " %s:\n", c.Name)
			lines(&b, "  ", [][2]string{{"Version", c.Version}})
			d := c.Details
			if c.Name != "Engine" {
				for _, key := range sorted(d) {
					lines(&b, "  ", [][2]string{{key, d[key]}})
				}
				continue
			}
			lines(&b, "  ", [][2]string{
				{"API version", fmt.Sprintf("%s (minimum version %s)", d["ApiVersion"], d["MinAPIVersion"])}, {"Go version", d["GoVersion"]},
				{"Git commit", d["GitCommit"]}, {"Built", d["BuildTime"]}, {"OS/Arch", d["Os"] + "/" + d["Arch"]}, {"Experimental", d["Experimental"]},
			})
		}
	}
	_, err := w.Write(alignCells([]byte(b.String()), 20, 1))
	return err
}

// lines writes those that have a value.
func lines(b *strings.Builder, indent string, pairs [][2]string) {
	for _, p := range pairs {
		if p[1] != "" {
			fmt.Fprintf(b, "%s%s:\t%s\n", indent, p[0], p[1])
		}
	}
}
