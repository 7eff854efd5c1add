package docker

import (
	"encoding/json"

	"github.com/moby/moby/api/types/image"
)

// imageInspect has what was always there until 1.52 (GraphDriver, Parent and the like), 1.45 (Container) and 1.44 (VirtualSize).
type imageInspect struct {
	imageNow
	Config      map[string]any
	GraphDriver *graphDriver `json:",omitempty"`
	*beforeFiftyTwo
	*beforeFortyFive
	VirtualSize *int64 `json:",omitempty"`
}

// imageNow stands deeper than the older fields, which win over it.
type imageNow struct{ image.InspectResponse }

type beforeFiftyTwo struct {
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
}

// beforeFortyFive has the configuration of the container that an image was made of, which is the image's: docker-compose 1.x reads its volumes.
type beforeFortyFive struct {
	Container       string
	ContainerConfig map[string]any
}

func shapeImage(v apiVersion, i image.InspectResponse, manifests bool) (imageInspect, error) {
	out := imageInspect{imageNow: imageNow{i}}
	var err error
	if out.Config, err = imageConfig(v, i); err != nil {
		return out, err
	}
	out.InspectResponse.GraphDriver = nil
	if !v.without(1052) {
		out.beforeFiftyTwo = &beforeFiftyTwo{Comment: i.Comment, Author: i.Author}
		out.GraphDriver = graphOf("overlayfs", i.GraphDriver)
	}
	if v < 1045 {
		out.beforeFortyFive = &beforeFortyFive{ContainerConfig: out.Config}
	}
	if v < 1048 {
		out.Descriptor = nil
	}
	if v < 1048 || !manifests {
		out.Manifests = nil
	}
	if v < 1044 {
		out.VirtualSize = &i.Size
	}
	return out, nil
}

// imageConfig is the configuration with the fields that were there without a value: some until 1.52, those of containers until 1.50.
func imageConfig(v apiVersion, i image.InspectResponse) (map[string]any, error) {
	out := map[string]any{}
	if !v.without(1052) {
		for _, name := range []string{"Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"} {
			out[name] = nil
		}
		out["User"], out["WorkingDir"] = "", ""
	}
	if v < 1050 {
		for _, name := range []string{"Hostname", "Domainname", "Image"} {
			out[name] = ""
		}
		for _, name := range []string{"AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"} {
			out[name] = false
		}
	}
	if i.Config == nil {
		return out, nil
	}
	b, err := json.Marshal(i.Config)
	if err != nil {
		return nil, err
	}
	return out, json.Unmarshal(b, &out)
}

type imageSummary struct {
	image.Summary
	VirtualSize *int64 `json:",omitempty"`
}

func shapeImages(v apiVersion, list []image.Summary) []imageSummary {
	out := make([]imageSummary, 0, len(list))
	for _, s := range list {
		one := imageSummary{Summary: s}
		one.RepoTags, one.RepoDigests = orEmpty(s.RepoTags), orEmpty(s.RepoDigests)
		if v < 1043 && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
			one.RepoTags, one.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
		if v < 1044 {
			size := s.Size
			one.VirtualSize = &size
		}
		if v < 1047 {
			one.Manifests = nil
		}
		if v < 1048 {
			one.Descriptor = nil
		}
		out = append(out, one)
	}
	return out
}
