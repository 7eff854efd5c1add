package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/container"

	"wherry.dev/wherry/internal/login"
)

// noHint is the environment's way to go without hints; config.json has "latestHint": false and "portHint": false.
const noHint = "WHERRY_NO_HINTS"

// hintAtLatest says once how to keep what a long-running container was made of, where it is a `latest` that came from a registry: the next
// pull may bring another image. It is a line on stderr for people, and says nothing while another container of the same name is there.
func hintAtLatest(ctx context.Context, app *App, f *runFlags, req container.CreateRequest) {
	n := splitName(req.Image)
	if f.rm || f.locked || n.digest != "" || cmp.Or(n.tag, "latest") != "latest" || os.Getenv(noHint) != "" || !hintsWanted(app, "latestHint") {
		return
	}
	m, err := means(ctx, app, taggedName(req.Image), place{})
	if err != nil || m.Pulled == nil {
		return // made here, or named by its id
	}
	c, err := app.Client()
	if err != nil {
		return
	}
	filters, err := json.Marshal(map[string][]string{"ancestor": {taggedName(req.Image)}})
	if err != nil {
		return
	}
	var list []container.Summary
	if c.Get(ctx, "/containers/json", url.Values{"all": {"1"}, "filters": {string(filters)}}, &list) != nil {
		return
	}
	same := 0
	for _, sum := range list {
		if taggedName(sum.Image) == taggedName(req.Image) {
			same++
		}
	}
	if same > 1 {
		return
	}
	fmt.Fprintf(app.Err, "note: %s may be another image tomorrow. To keep this one: wherry lock %[2]s, then run --locked; or name a version. "+
		"(No such notes: \"latestHint\": false in %[3]s)\n", familiarName(taggedName(req.Image)), req.Image, filepath.Join(app.Config, "config.json"))
}

// hintsWanted reads a field of config.json, where anything but false means yes.
func hintsWanted(app *App, field string) bool {
	c, err := login.Read(app.Config)
	if err != nil {
		return true
	}
	wanted := true
	return c.Field(field, &wanted) != nil || wanted
}
