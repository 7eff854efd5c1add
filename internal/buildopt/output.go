package buildopt

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Export is a place where the result goes.
type Export struct {
	Type  string // of BuildKit's exporters: image, local, tar, oci, docker; moby keeps an image in the engine
	Attrs map[string]string
	Dest  string // a directory, a file, or "-"; "" where the type needs none
}

// Image types of outputs.
const (
	TypeEngine = "moby" // how BuildKit's clients call the store of the engine that they speak to
	TypeImage  = "image"
)

// Exports reads --output, --push, --load, --tag and --annotation. normalize makes a name whole (docker.io/library/x:latest) and refuses ones
// that are none; nil leaves names as they are. No export at all means that the result stays in the cache.
func (o *Options) Exports(normalize func(string) (string, error)) ([]Export, error) {
	names, err := o.names(normalize)
	if err != nil {
		return nil, err
	}
	list := make([]Export, 0, len(o.Outputs)+1)
	for _, s := range o.Outputs {
		e, err := export(s)
		if err != nil {
			return nil, fmt.Errorf("--output %q: %w", s, err)
		}
		list = append(list, e)
	}
	if len(o.Outputs) == 0 || o.Load && !slices.ContainsFunc(list, func(e Export) bool { return e.Type == TypeEngine }) {
		list = append(list, Export{Type: TypeEngine, Attrs: map[string]string{}})
	}
	if o.Push {
		if list, err = pushed(list); err != nil {
			return nil, err
		}
	}
	list = slices.DeleteFunc(list, func(e Export) bool { return e.Type == "cacheonly" })
	for i := range list {
		if err := o.complete(&list[i], names, normalize); err != nil {
			return nil, err
		}
	}
	return list, onlyOne(list)
}

// names are those of --tag, whole and each once.
func (o *Options) names(normalize func(string) (string, error)) ([]string, error) {
	var names []string
	for _, t := range o.Tags {
		if t == "" {
			return nil, errors.New("--tag needs a name")
		}
		if normalize != nil {
			whole, err := normalize(t)
			if err != nil {
				return nil, fmt.Errorf("--tag %q: %w", t, err)
			}
			t = whole
		}
		if !slices.Contains(names, t) {
			names = append(names, t)
		}
	}
	return names, nil
}

// export reads one --output.
func export(s string) (Export, error) {
	kind, attrs, err := typed(s, func(s string) (string, map[string]string) {
		if s == "-" {
			return "tar", map[string]string{"dest": "-"}
		}
		return "local", map[string]string{"dest": s}
	})
	if err != nil {
		return Export{}, err
	}
	e := Export{Type: kind, Attrs: attrs, Dest: attrs["dest"]}
	delete(attrs, "dest")
	if w, ok := attrs["output"]; ok {
		return e, fmt.Errorf("output=%s is not known: dest=%[1]s may be meant", w)
	}
	return e, e.place()
}

// place checks that the destination fits the type, and calls types as BuildKit does.
func (e *Export) place() error {
	switch e.Type {
	case "local":
		if e.Dest == "" || e.Dest == "-" {
			return fmt.Errorf("type=local wants dest=DIRECTORY")
		}
	case "tar", "oci":
		if e.Dest == "" {
			e.Dest = "-"
		}
	case "docker":
		if e.Dest == "" {
			e.Type = TypeEngine // what docker loads into its engine is kept by this one
		}
	case TypeImage, "registry", TypeEngine, "cacheonly":
		if e.Dest != "" {
			return fmt.Errorf("type=%s goes to no file", e.Type)
		}
		if e.Type == "registry" {
			e.Type, e.Attrs["push"] = TypeImage, "true"
		}
		if push, _ := strconv.ParseBool(e.Attrs["push"]); e.Type == TypeImage && !push {
			e.Type = TypeEngine
		}
	default:
		return fmt.Errorf("there is no type %s: image, local, tar, oci, docker, registry, cacheonly", e.Type)
	}
	return nil
}

// pushed makes the image exports push as well.
func pushed(list []Export) ([]Export, error) {
	found := false
	for i := range list {
		if list[i].Type == TypeEngine || list[i].Type == TypeImage {
			list[i].Type, list[i].Attrs["push"], found = TypeImage, "true", true
		}
	}
	if !found {
		return nil, fmt.Errorf("--push: none of the outputs is an image; add --output type=registry")
	}
	return list, nil
}

// complete gives an export of images the names and annotations that stand outside of --output.
func (o *Options) complete(e *Export, names []string, normalize func(string) (string, error)) error {
	if e.Type == "local" || e.Type == "tar" {
		return nil
	}
	if err := e.name(names, normalize); err != nil {
		return err
	}
	if o.Format != "" && e.Attrs["oci-mediatypes"] == "" {
		e.Attrs["oci-mediatypes"] = strconv.FormatBool(o.Format == "oci")
	}
	for _, a := range o.Annotations {
		if err := e.annotate(a); err != nil {
			return err
		}
	}
	if push, _ := strconv.ParseBool(e.Attrs["push"]); push && e.Attrs["name"] == "" {
		return fmt.Errorf("a push needs a name: add --tag REGISTRY/NAME")
	}
	return nil
}

func (e *Export) name(names []string, normalize func(string) (string, error)) error {
	given := e.Attrs["name"]
	if given == "" {
		if len(names) > 0 {
			e.Attrs["name"] = strings.Join(names, ",")
		}
		return nil
	}
	if byDigest, _ := strconv.ParseBool(e.Attrs["push-by-digest"]); byDigest || normalize == nil {
		return nil // by digest there is no tag, which normalize would add
	}
	var whole []string
	for _, n := range strings.Split(given, ",") {
		w, err := normalize(n)
		if err != nil {
			return fmt.Errorf("--output name=%s: %w", n, err)
		}
		whole = append(whole, w)
	}
	e.Attrs["name"] = strings.Join(whole, ",")
	return nil
}

// annotate adds "index,manifest[linux/amd64]:NAME=value" for each level that it names.
func (e *Export) annotate(s string) error {
	name, value, has := strings.Cut(s, "=")
	if !has || name == "" {
		return fmt.Errorf("--annotation %q: write NAME=value", s)
	}
	levels, rest, ok := strings.Cut(name, ":")
	for _, level := range strings.Split(levels, ",") {
		bare, _, _ := strings.Cut(level, "[")
		ok = ok && slices.Contains([]string{"index", "manifest", "index-descriptor", "manifest-descriptor"}, bare)
	}
	if !ok {
		e.Attrs["annotation."+name] = value
		return nil
	}
	for _, level := range strings.Split(levels, ",") {
		e.Attrs["annotation-"+level+"."+rest] = value
	}
	return nil
}

// onlyOne refuses two exports into the output of this program.
func onlyOne(list []Export) error {
	n := 0
	for _, e := range list {
		if e.Dest == "-" {
			n++
		}
	}
	if n > 1 {
		return fmt.Errorf("--output: only one result can go to the output")
	}
	return nil
}

// Cache is a place where cache comes from or goes to.
type Cache struct {
	Type  string
	Attrs map[string]string
}

// CachesFrom reads --cache-from.
func (o *Options) CachesFrom() ([]Cache, error) { return caches("--cache-from", "src", o.CacheFrom) }

// CachesTo reads --cache-to.
func (o *Options) CachesTo() ([]Cache, error) { return caches("--cache-to", "dest", o.CacheTo) }

func caches(flag, place string, list []string) ([]Cache, error) {
	var out []Cache
	for _, s := range list {
		kind, attrs, err := typed(s, func(s string) (string, map[string]string) {
			if s == "inline" && place == "dest" {
				return s, map[string]string{}
			}
			return "registry", map[string]string{"ref": s}
		})
		switch {
		case err != nil:
		case kind == "local" && attrs[place] == "":
			err = fmt.Errorf("type=local wants %s=DIRECTORY", place)
		case kind == "registry" && attrs["ref"] == "":
			err = fmt.Errorf("type=registry wants ref=NAME")
		case kind == "inline" && place == "src":
			err = fmt.Errorf("inline cache comes with its image: name that")
		}
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag, s, err)
		}
		out = append(out, Cache{Type: kind, Attrs: maps.Clone(attrs)})
	}
	return out, nil
}
