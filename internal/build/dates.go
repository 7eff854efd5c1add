package build

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// madeThen is a result whose configurations say that it was made at a date, in seconds since 1970. BuildKit does that for those that say something
// later; by a clock that is behind they say something earlier.
func madeThen(src *exporter.Source, date string) *exporter.Source {
	seconds, err := strconv.ParseInt(date, 10, 64)
	if err != nil {
		return src // which BuildKit refuses
	}
	then := time.Unix(seconds, 0).UTC()
	out := src.Clone()
	for key, config := range src.Metadata {
		platform, ok := strings.CutPrefix(key, exptypes.ExporterImageConfigKey)
		if ok && (platform == "" || platform[0] == '/') {
			out.Metadata[key] = dateConfig(config, src.Metadata[exptypes.ExporterImageBaseConfigKey+platform], then)
		}
	}
	return out
}

// dateConfig dates an image's configuration, and of its history what its base does not have.
func dateConfig(config, base []byte, then time.Time) []byte {
	var fields map[string]json.RawMessage
	var made, from struct {
		History []ocispec.History `json:"history"`
	}
	if json.Unmarshal(config, &fields) != nil || json.Unmarshal(config, &made) != nil {
		return config
	}
	_ = json.Unmarshal(base, &from) // none: all of it is new
	for i := min(len(from.History), len(made.History)); i < len(made.History); i++ {
		made.History[i].Created = &then
	}
	for key, value := range map[string]any{"created": then, "history": made.History} {
		if _, ok := fields[key]; !ok {
			continue
		}
		b, err := json.Marshal(value)
		if err != nil {
			return config
		}
		fields[key] = b
	}
	if b, err := json.Marshal(fields); err == nil {
		return b
	}
	return config
}
