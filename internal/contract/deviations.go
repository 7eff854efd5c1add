package contract

import (
	"path"
	"strconv"
	"strings"
)

// deviation is where an exchange may differ from the specification. All but why are patterns of path.Match, with * for anything.
type deviation struct {
	operation, at, what string
	why                 string
}

const (
	null         = "it is null, not *"
	nullsOfMoby  = "dockerd says null for a list, a map or a choice that nobody has made; clients know both"
	wherrysOwn   = "Wherry's own field beside Docker's"
	unlistedCode = "dockerd answers so, and its specification forgets it"
)

// deviations are where moby itself differs from its specification, or where Wherry says more.
func deviations() []deviation {
	return []deviation{
		{"GET /containers/json", "answer 200 [].Wherry*", "*", wherrysOwn},
		{"GET /containers/{id}/json", "answer 200 .Wherry*", "*", wherrysOwn},
		{"POST /containers/create", "request.Wherry*", "*", wherrysOwn},
		{"GET /system/df", "answer 200 .Other*", "*", wherrysOwn},

		{"GET /containers/{id}/json", "answer 200 .Config.*", null, nullsOfMoby},
		{"GET /containers/{id}/json", "answer 200 .HostConfig.*", null, nullsOfMoby},
		{"GET /containers/{id}/json", "answer 200 .NetworkSettings.*", null, nullsOfMoby},
		{"GET /containers/json", "answer 200 [].NetworkSettings.*", null, nullsOfMoby},
		{"GET /images/{name}/json", "answer 200 *Config.*", null, nullsOfMoby},
		{"GET /images/json", "answer 200 [].Labels", null, nullsOfMoby},
		{"GET /networks*", "answer 200 *IPAM.*", null, nullsOfMoby},
		{"GET /volumes*", "answer 200 *", null, nullsOfMoby},
		{"POST /volumes/create", "answer 201 *", null, nullsOfMoby},
		{"GET /system/df", "answer 200 *.Labels", null, nullsOfMoby},
		{"GET /system/df", "answer 200 *.Options", null, nullsOfMoby},
		{"GET /system/df", "answer 200 .Containers*.NetworkSettings.*", null, nullsOfMoby},
		{"GET /containers/{id}/stats", "answer 200 .blkio_stats.*", null, "dockerd says null for a container that does not run"},
		{"GET /info", "answer 200 .Plugins.*", null, nullsOfMoby},

		{"GET /containers/{id}/logs", "query details", "*", "docker sends it, and dockerd knows it"},
		{"GET /containers/{id}/logs", "query since", "*no integer", "docker sends fractions of seconds, as to /events"},
		{"GET /containers/{id}/logs", "query until", "*no integer", "the same"},
		{"POST /containers/{id}/exec", "request.Detach", "*", "docker sends it, and dockerd ignores it"},
		{"GET /images/get", "query format", "*", "Wherry's own: save --format"},
		{"POST /images/create", "query allPlatforms", "*", "Wherry's own: pull --all-platforms"},
		{"POST /images/create", "query platforms", "*", "Wherry's own: pull with several --platform"},
		{"POST /build", "query ulimits", "*", "docker sends it, and dockerd knows it"},
		{"POST /build", "query cpusetmems", "*", "the same"},
		{"POST /build", "query securityopt", "*", "the same"},
		{"POST /containers/{id}/update", "answer 409", "*", unlistedCode},
		{"POST /networks/{id}/connect", "answer 409", "*", unlistedCode},
		{"POST /networks/{id}/disconnect", "answer 409", "*", "dockerd says 500 where a container is not connected"},
		{"GET /images/{name}/history", "answer 200 [].Tags", null, nullsOfMoby},
		{"GET /containers/json", "query trunc_cmd", "*", "docker-py sends it, and dockerd ignores it"},
		{"DELETE /containers/*/*", "path", "*", "a link goes by its own name, CONTAINER/ALIAS, whose slash docker leaves as it is"},
		{"POST /grpc", "path", "*", "the way to BuildKit has never been in the specification"},
		{"POST /containers/{id}/start", "answer 409", "*", unlistedCode},
		{"POST /volumes/create", "answer 404", "*", unlistedCode},
		{"GET /volumes/{name}", "answer 200 .Status.*", "*", "a driver's own words, which rclone's are lists among"},

		{"* /containers/*/checkpoints*", "path", "*", "experimental in dockerd, and in no specification"},
		{"POST /containers/{id}/pause", "answer 409", "*", unlistedCode},
		{"GET /containers/{id}/archive", "answer 409", "*", "Wherry says so of a container that is being removed"},
		{"PUT /containers/{id}/archive", "answer 409", "*", "the same"},
		{"POST /containers/{id}/unpause", "answer 409", "*", unlistedCode},
		{"GET /containers/{id}/top", "answer 409", "*", unlistedCode},
		{"GET /images/{name}/get", "answer 404", "*", unlistedCode},
		{"POST /exec/{id}/start", "answer 101", "*", "its text says that the connection is upgraded, as for attach"},
		{"GET /events", "answer 200 .status", "*", "it was there until 1.52, and was never written down"},
		{"GET /events", "answer 200 .id", "*", "the same"},
		{"GET /events", "answer 200 .from", "*", "the same"},
	}
}

// early are deviations of versions before one.
func early() []struct {
	before int
	deviation
} {
	return []struct {
		before int
		deviation
	}{
		{32, deviation{"*", "answer 200*", "it is *", "the first files have types that no dockerd has sent: Ports as a list, ExecIDs as a word"}},
		{32, deviation{"*", "answer 200*", "*is none of*", "the same"}},
		{50, deviation{"GET /info", "answer 200 .BridgeNf*", "*", "forgotten in some files"}},
		{42, deviation{"GET /system/df", "answer 200 .BuilderSize", "*", "sent by dockerd until 1.42, and never written down"}},
		{41, deviation{"POST /containers/create", "query platform", "*", "ignored then, as by dockerd"}},
	}
}

func deviates(p Problem) bool {
	all := deviations()
	for _, e := range early() {
		if minor(p.Version) < e.before {
			all = append(all, e.deviation)
		}
	}
	for _, d := range all {
		if matches(d.operation, p.Operation) && matches(d.at, p.At) && matches(d.what, p.What) {
			return true
		}
	}
	return false
}

func minor(version string) int {
	_, m, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(m)
	return n
}

// matches is path.Match where slashes, brackets and braces are letters like others.
func matches(pattern, s string) bool {
	flat := strings.NewReplacer("/", "\x01", "[", "\x02", "]", "\x03", "{", "\x04", "}", "\x05")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(s))
	return err == nil && ok
}
