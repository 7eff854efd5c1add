package sources

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

const maxFiles = 50 // that a compose file may lead to

// compose collects the images of services, of the Dockerfiles that services are built from, and of the files that it includes or extends.
// A service with `build` is its own image: what it is called is not looked for.
func (r *reader) compose(path string) error {
	if r.seen[path] {
		return nil
	}
	if r.seen[path] = true; len(r.seen) > maxFiles {
		return fmt.Errorf("%s: more than %d files include each other", path, maxFiles)
	}
	text, err := readFile(path)
	if err != nil {
		return err
	}
	docs, err := parseYAML(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	env, err := r.variables(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, doc := range docs {
		c := &compose{reader: r, doc: doc, path: path, env: env}
		if err := c.read(); err != nil {
			return err
		}
	}
	return nil
}

// variables are those of the environment, then those of .env beside a compose file.
func (r *reader) variables(dir string) (func(string) (string, bool), error) {
	text, err := readFile(filepath.Join(dir, ".env"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file := map[string]string{}
	get := func(name string) (string, bool) {
		if r.o.Env != nil {
			if v, ok := r.o.Env(name); ok {
				return v, ok
			}
		}
		v, ok := file[name]
		return v, ok
	}
	for i, l := range strings.Split(string(text), "\n") {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "export "), "=")
		if name = strings.TrimSpace(name); !ok || name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if file[name], err = dotenvValue(strings.TrimSpace(value), get); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", filepath.Join(dir, ".env"), i+1, err)
		}
	}
	return get, nil
}

func dotenvValue(s string, get func(string) (string, bool)) (string, error) {
	if rest, ok := strings.CutPrefix(s, "'"); ok {
		value, _, _ := strings.Cut(rest, "'")
		return value, nil
	}
	if rest, ok := strings.CutPrefix(s, `"`); ok {
		s, _, _ = strings.Cut(rest, `"`)
	} else {
		s, _, _ = strings.Cut(s, " #")
		s = strings.TrimSpace(s)
	}
	lenient := func(name string) (string, bool) { v, _ := get(name); return v, true }
	return expansion{get: lenient, escape: '\\'}.text(s)
}

// compose is one document of a compose file.
type compose struct {
	*reader
	doc  yamlDocument
	path string
	env  func(string) (string, bool)
}

// fail names the place of an error.
func (c *compose) fail(n ast.Node, err error) error {
	return fmt.Errorf("%s: line %d: %w", c.path, line(n), err)
}

// text is a scalar with its variables replaced; "" where there is none.
func (c *compose) text(n ast.Node) (string, error) {
	s, _ := c.doc.scalar(n)
	out, err := expansion{get: c.env, escape: '$'}.text(s)
	var unset *unsetError
	if errors.As(err, &unset) {
		err = fmt.Errorf("%w: set it in the environment or in .env, or write ${%s:-DEFAULT}", err, unset.name)
	}
	if err != nil {
		return "", c.fail(n, fmt.Errorf("%s: %w", s, err))
	}
	return out, nil
}

// at is a path of the file's, seen from here; "" for what lies elsewhere than in files.
func (c *compose) at(path string) string {
	if strings.Contains(path, "://") || strings.HasPrefix(path, "git@") || strings.HasPrefix(path, "github.com/") {
		return ""
	}
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(c.path), path)
}

func (c *compose) read() error {
	for _, entry := range c.doc.list(c.doc.get(c.doc.root, "include")) {
		paths := c.doc.get(entry, "path")
		if paths == nil {
			paths = c.doc.plain(entry)
		}
		for _, p := range c.doc.list(paths) {
			if err := c.other(p); err != nil {
				return err
			}
		}
	}
	for _, service := range c.doc.pairs(c.doc.get(c.doc.root, "services")) {
		if err := c.service(service.value); err != nil {
			return err
		}
	}
	return nil
}

// other reads a further compose file that this one names.
func (c *compose) other(n ast.Node) error {
	name, err := c.text(n)
	if err != nil || name == "" {
		return err
	}
	path := c.at(name)
	if path == "" {
		return c.fail(n, fmt.Errorf("%s is not a file here: lock it where it is", name))
	}
	if err := c.reader.compose(path); err != nil {
		return c.fail(n, err)
	}
	return nil
}

func (c *compose) service(n ast.Node) error {
	build, image := c.doc.get(n, "build"), c.doc.get(n, "image")
	if build == nil && image != nil {
		name, err := c.text(image)
		if err != nil {
			return err
		}
		if name != "" {
			c.add(c.path, line(image), name)
		}
	}
	if build != nil {
		if err := c.build(build); err != nil {
			return err
		}
	}
	if file := c.doc.get(c.doc.get(n, "extends"), "file"); file != nil {
		if err := c.other(file); err != nil {
			return err
		}
	}
	for _, mount := range c.doc.list(c.doc.get(n, "volumes")) {
		if kind, _ := c.doc.scalar(c.doc.get(mount, "type")); kind != "image" {
			continue
		}
		source := c.doc.get(mount, "source")
		name, err := c.text(source)
		if err != nil {
			return err
		}
		if name != "" {
			c.add(c.path, line(source), name)
		}
	}
	return nil
}

// build follows a service to its Dockerfile, where that lies in files.
func (c *compose) build(n ast.Node) error {
	context, err := c.text(cmp.Or(c.doc.get(n, "context"), n))
	if err != nil {
		return err
	}
	args, err := c.assignments(c.doc.get(n, "args"))
	if err != nil {
		return err
	}
	more, err := c.assignments(c.doc.get(n, "additional_contexts"))
	if err != nil {
		return err
	}
	for _, from := range more {
		if name, ok := strings.CutPrefix(from, "docker-image://"); ok {
			c.add(c.path, line(n), name)
		}
	}
	// Arguments of the caller win, as those of `build --build-arg` do.
	maps.Copy(args, c.o.Args)
	if inline := c.doc.get(n, "dockerfile_inline"); inline != nil {
		text, err := c.text(inline)
		if err != nil {
			return err
		}
		return c.dockerfileText(c.path+" (dockerfile_inline)", []byte(text), args)
	}
	file, err := c.text(c.doc.get(n, "dockerfile"))
	if err != nil {
		return err
	}
	dir := c.at(cmp.Or(context, "."))
	if dir == "" {
		return nil // a repository elsewhere has a lock file of its own
	}
	path := cmp.Or(file, "Dockerfile")
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if err := c.dockerfile(path, args); err != nil {
		return c.fail(n, err)
	}
	return nil
}

// assignments are a mapping, or a list of NAME=value. Variables without a value are empty there: most arguments name no image.
func (c *compose) assignments(n ast.Node) (map[string]string, error) {
	strict := c.env
	defer func() { c.env = strict }()
	c.env = func(name string) (string, bool) { v, _ := strict(name); return v, true }
	out := map[string]string{}
	if list, ok := n.(*ast.SequenceNode); ok {
		for _, entry := range list.Values {
			text, err := c.text(entry)
			if err != nil {
				return nil, err
			}
			if name, value, has := strings.Cut(text, "="); has {
				out[name] = value
			} else if value, has := strict(name); has {
				out[name] = value
			}
		}
		return out, nil
	}
	for _, p := range c.doc.pairs(n) {
		if c.doc.plain(p.value) == nil {
			if value, has := strict(p.key); has {
				out[p.key] = value
			}
			continue
		}
		value, err := c.text(p.value)
		if err != nil {
			return nil, err
		}
		out[p.key] = value
	}
	return out, nil
}
