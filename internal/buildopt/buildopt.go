// Package buildopt reads the words of `wherry build`: its flags, and what is written in their values.
//
// Both the command line, for help and completion, and wherry-build, which does the work, register the same flags here. Nothing is kept, nothing
// is read but the environment where a flag says so, and BuildKit is not linked: what it is to be told comes out as plain strings.
package buildopt

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// Options of a build as they were typed, one field for each flag.
type Options struct {
	Context string // the argument: a directory, "-", or the address of a git repository, tar file or Dockerfile

	// what is built
	File, IgnoreFile, Target    string
	Args, Labels, Contexts      []string
	Platforms, NoCacheStages    []string
	NoCache                     bool
	Pull                        string
	SourceDate                  string // seconds since 1970, or RFC 3339
	Secrets, SSH, Allow, Attest []string
	Provenance, SBOM            string

	// what comes out of it
	Tags, Outputs, Annotations []string
	Push, Load                 bool
	Format                     string
	CacheFrom, CacheTo         []string
	ImageIDFile, MetadataFile  string

	// how steps run
	Network, CgroupParent, ShmSize string
	AddHosts, Ulimits              []string
	Memory, MemorySwap             string
	CPUShares, CPUPeriod, CPUQuota int64
	CPUs, Mems                     string

	// what people see
	Progress, Call, OnFailure    string
	Quiet, Check, Explain, Debug bool
	Builder                      string
}

// Register adds the flags of build to a set.
func (o *Options) Register(fs *pflag.FlagSet) {
	fs.SortFlags = true
	o.registerSources(fs)
	o.registerResults(fs)
	o.registerSteps(fs)
	o.registerSights(fs)
	registerOld(fs)
}

func (o *Options) registerSources(fs *pflag.FlagSet) {
	fs.StringVarP(&o.File, "file", "f", "", "The Dockerfile, - for the input (default: Dockerfile in the context)")
	fs.StringVar(&o.IgnoreFile, "ignorefile", "", "Use this `file` instead of .dockerignore")
	fs.StringVar(&o.Target, "target", "", "Build up to this `stage`")
	fs.Var(list{&o.Args}, "build-arg", "Set a build argument, NAME=value; NAME alone takes it from the environment")
	fs.Var(list{&o.Labels}, "label", "Give the image a label, NAME=value")
	fs.Var(list{&o.Contexts}, "build-context", "Another context, NAME=what: a directory, docker-image://, oci-layout://, an address")
	fs.StringSliceVar(&o.Platforms, "platform", nil, "Build for these, such as linux/amd64,linux/arm64")
	fs.BoolVar(&o.NoCache, "no-cache", false, "Run every step anew")
	fs.StringSliceVar(&o.NoCacheStages, "no-cache-filter", nil, "Run the steps of these `stages` anew")
	fs.StringVar(&o.Pull, "pull", "", "Look for newer base images: always, missing, never")
	fs.Lookup("pull").NoOptDefVal = "always"
	fs.StringVar(&o.SourceDate, "source-date-epoch", "", "Date everything in the image this `time`: seconds since 1970, or RFC 3339 (default: SOURCE_DATE_EPOCH)")
	fs.StringVar(&o.SourceDate, "timestamp", "", "The same, as podman calls it")
	fs.Var(list{&o.Secrets}, "secret", "A secret for RUN --mount=type=secret, id=ID[,src=FILE|,env=NAME]")
	fs.Var(list{&o.SSH}, "ssh", "An agent's socket or keys for RUN --mount=type=ssh, default|ID[=SOCKET|KEY,…]")
	fs.Var(list{&o.Allow}, "allow", "Allow what steps cannot do otherwise: network.host, security.insecure")
	fs.Var(list{&o.Attest}, "attest", "Attach an attestation, type=sbom|provenance[,KEY=value…]")
	fs.StringVar(&o.Provenance, "provenance", "", "Attach how it was built: true, mode=min, mode=max")
	fs.Lookup("provenance").NoOptDefVal = "true"
	fs.StringVar(&o.SBOM, "sbom", "", "Attach what is in it: true, generator=IMAGE")
	fs.Lookup("sbom").NoOptDefVal = "true"
}

func (o *Options) registerResults(fs *pflag.FlagSet) {
	fs.VarP(list{&o.Tags}, "tag", "t", "A name for the image")
	fs.VarP(list{&o.Outputs}, "output", "o", "Where the result goes: a directory, - (a tar), or type=image|local|tar|oci|docker|registry|cacheonly[,…]")
	fs.Var(list{&o.Annotations}, "annotation", "Annotate the image, [index|manifest[PLATFORM]…:]NAME=value")
	fs.BoolVar(&o.Push, "push", false, "Push the image to its registry, too")
	fs.BoolVar(&o.Load, "load", false, "Keep the image in the engine (what happens anyway without --output)")
	fs.StringVar(&o.Format, "format", "", "Manifests of this kind: oci (default), docker")
	fs.Var(list{&o.CacheFrom}, "cache-from", "Take cache from an image or type=registry|local[,…]")
	fs.Var(list{&o.CacheTo}, "cache-to", "Send cache to type=inline|registry|local[,…]")
	fs.StringVar(&o.ImageIDFile, "iidfile", "", "Write the image's ID to this `file`")
	fs.StringVar(&o.MetadataFile, "metadata-file", "", "Write what came out, as JSON, to this `file`")
}

func (o *Options) registerSteps(fs *pflag.FlagSet) {
	fs.StringVar(&o.Network, "network", "", "Network of RUN steps: default, none, host")
	fs.Var(list{&o.AddHosts}, "add-host", "A name for RUN steps, NAME:ADDRESS")
	fs.StringVar(&o.CgroupParent, "cgroup-parent", "", "Control `group` that RUN steps stand in")
	fs.StringVar(&o.ShmSize, "shm-size", "", "Size of /dev/shm, such as 64m")
	fs.Var(list{&o.Ulimits}, "ulimit", "A limit of processes, NAME=SOFT[:HARD]")
	fs.StringVarP(&o.Memory, "memory", "m", "", "Memory of a step, such as 512m")
	fs.StringVar(&o.MemorySwap, "memory-swap", "", "Memory and swap of a step, -1 for no limit")
	fs.Int64VarP(&o.CPUShares, "cpu-shares", "c", 0, "Weight of a step when processors are short")
	fs.Int64Var(&o.CPUPeriod, "cpu-period", 0, "Period of the processor quota, in microseconds")
	fs.Int64Var(&o.CPUQuota, "cpu-quota", 0, "Processor time of a step in each period")
	fs.StringVar(&o.CPUs, "cpuset-cpus", "", "Processors of a step, such as 0-3,5")
	fs.StringVar(&o.Mems, "cpuset-mems", "", "Memory nodes of a step")
}

func (o *Options) registerSights(fs *pflag.FlagSet) {
	fs.StringVar(&o.Progress, "progress", "auto", "What is shown of it: auto, tty, plain, quiet, rawjson")
	fs.BoolVarP(&o.Quiet, "quiet", "q", false, "Print the image's ID only")
	fs.BoolVar(&o.Check, "check", false, "Check the Dockerfile, build nothing")
	fs.StringVar(&o.Call, "call", "", "Ask instead of building: build, check, outline, targets[,format=json]")
	fs.StringVar(&o.OnFailure, "on-failure", "", "When a step fails: shell, for one where it failed")
	fs.BoolVar(&o.Debug, "debug", false, "The same as --on-failure=shell")
	fs.BoolVar(&o.Explain, "explain", false, "Say for every step whether it ran, and what first differed from the last build")
	fs.StringVar(&o.Builder, "builder", "", "There is one builder: default")
}

// registerOld adds what Docker or Podman take and what changes nothing here, so that scripts go on working.
func registerOld(fs *pflag.FlagSet) {
	for _, name := range []string{"rm", "force-rm", "compress", "layers"} {
		fs.Bool(name, true, "Not used")
		_ = fs.MarkHidden(name)
	}
	fs.String("isolation", "", "Not used")
	fs.StringArray("security-opt", nil, "Not used: steps have the engine's own restrictions")
	for _, name := range []string{"isolation", "security-opt"} {
		_ = fs.MarkHidden(name)
	}
}

// Validate refuses values that nothing could come of, before anything is asked of the engine.
func (o *Options) Validate() error {
	for _, check := range []func() error{o.checkWords, o.checkSizes,
		func() error { _, err := o.Exports(nil); return err },
		func() error { _, err := o.FrontendAttrs(nil); return err },
		func() error { _, err := o.SecretSources(); return err },
		func() error { _, err := o.SSHSources(); return err },
		func() error { _, err := o.CachesFrom(); return err },
		func() error { _, err := o.CachesTo(); return err },
		func() error { _, err := o.NamedContexts(); return err },
		func() error { _, err := o.Question(); return err },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) checkWords() error {
	for _, w := range []struct{ flag, value, words string }{
		{"--progress", o.Progress, "auto, tty, plain, quiet, rawjson"},
		{"--pull", strings.ToLower(o.Pull), "always, missing, never, newer, true, false"},
		{"--network", o.Network, "default, none, host"},
		{"--on-failure", o.OnFailure, "shell"},
		{"--format", o.Format, "oci, docker"},
		{"--builder", o.Builder, "default"},
	} {
		if w.value != "" && !slices.Contains(strings.Split(w.words, ", "), w.value) {
			return fmt.Errorf("%s %q: it can be %s", w.flag, w.value, w.words)
		}
	}
	for _, a := range o.Allow {
		if word, _, _ := strings.Cut(a, "="); !slices.Contains([]string{"network.host", "security.insecure", "device"}, word) {
			return fmt.Errorf("--allow %q: it can be network.host, security.insecure, device", a)
		}
	}
	if o.File == "-" && o.Context == "-" {
		return errors.New("--file - and a context of - both want the input: one of them only")
	}
	return nil
}

func (o *Options) checkSizes() error {
	for _, s := range []struct{ flag, value string }{{"--shm-size", o.ShmSize}, {"--memory", o.Memory}, {"--memory-swap", o.MemorySwap}} {
		if _, err := bytes(s.value); err != nil {
			return fmt.Errorf("%s %q: %w", s.flag, s.value, err)
		}
	}
	for _, u := range o.Ulimits {
		if _, err := units.ParseUlimit(u); err != nil {
			return fmt.Errorf("--ulimit %q: %w", u, err)
		}
	}
	return nil
}

// bytes reads a size with Docker's units; "" is 0, and -1 stands for no limit.
func bytes(s string) (int64, error) {
	if s == "" || s == "-1" {
		return map[string]int64{"": 0, "-1": -1}[s], nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil {
		return 0, errors.New("give a size such as 512m or 2g")
	}
	return n, nil
}

// Shell tells whether a failed step is to be looked into.
func (o *Options) Shell() bool { return o.Debug || o.OnFailure == "shell" }

// ProgressMode is how progress is shown, where --quiet counts as a mode.
func (o *Options) ProgressMode() string {
	if o.Quiet {
		return "quiet"
	}
	return cmp.Or(o.Progress, "auto")
}
