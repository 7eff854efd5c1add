package build

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// fixedDate is the date of what builds make, 1 January 1980: the earliest that archives of all kinds can hold.
const fixedDate = 315532800

// dates is that date as snapshots and programs are told of it, "" where files keep their own.
func (o *Options) dates() string {
	if o.Settings.Dates == "kept" {
		return ""
	}
	return strconv.Itoa(fixedDate)
}

// madeAt is when an image says it was made, where nobody has said it: when the image that it was built on was, and without one the fixed
// date. The clock is no part of the sources.
func madeAt(src *exporter.Source) string {
	newest := time.Unix(fixedDate, 0)
	look := func(config []byte) {
		var c struct {
			Created *time.Time `json:"created"`
		}
		if json.Unmarshal(config, &c) == nil && c.Created != nil && c.Created.After(newest) {
			newest = *c.Created
		}
	}
	look(src.Metadata[exptypes.ExporterImageBaseConfigKey])
	if list, err := exptypes.ParsePlatforms(src.Metadata); err == nil {
		for _, p := range list.Platforms {
			look(src.Metadata[exptypes.ExporterImageBaseConfigKey+"/"+p.ID])
		}
	}
	return strconv.FormatInt(newest.Unix(), 10)
}
