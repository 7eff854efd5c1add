package cli

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// secretUse is what a container is given of the engine's secrets and configs.
type secretUse struct {
	Kind   string
	Name   string
	Target string `json:",omitempty"`
	Env    bool   `json:",omitempty"`
	UID    uint32 `json:",omitempty"`
	GID    uint32 `json:",omitempty"`
	Mode   uint32 `json:",omitempty"`
}

// secretFlag collects --secret NAME[,target=…,uid=…,gid=…,mode=…,type=mount|env], and --config of the same shape.
type secretFlag struct {
	kind string
	into *[]secretUse
}

func (f *secretFlag) String() string { return "" }
func (f *secretFlag) Type() string   { return f.kind }

func (f *secretFlag) Set(text string) error {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil || len(fields) == 0 {
		return fmt.Errorf("write NAME[,target=PATH][,uid=N][,gid=N][,mode=0400][,type=mount|env]")
	}
	use := secretUse{Kind: f.kind}
	for i, field := range fields {
		key, value, has := strings.Cut(field, "=")
		if i == 0 && !has {
			key, value = "source", field
		}
		if err := use.field(key, value); err != nil {
			return err
		}
	}
	if use.Name == "" {
		return fmt.Errorf("which %s? write its name first", f.kind)
	}
	if use.Env && (use.UID != 0 || use.GID != 0 || use.Mode != 0) {
		return fmt.Errorf("uid, gid and mode are of files: leave them or type=env out")
	}
	*f.into = append(*f.into, use)
	return nil
}

func (u *secretUse) field(key, value string) error {
	number := func(base int) (uint32, error) {
		n, err := strconv.ParseUint(value, base, 32)
		if err != nil {
			return 0, fmt.Errorf("%s=%s: it is a number", key, value)
		}
		return uint32(n), nil
	}
	var err error
	switch key {
	case "source", "src":
		u.Name = value
	case "target", "dst", "destination":
		u.Target = value
	case "type":
		if value != "env" && value != "mount" {
			return fmt.Errorf("type=%s: it is mount or env", value)
		}
		u.Env = value == "env"
	case "uid":
		u.UID, err = number(10)
	case "gid":
		u.GID, err = number(10)
	case "mode":
		u.Mode, err = number(8)
	default:
		return fmt.Errorf("%q: there are target, uid, gid, mode and type", key)
	}
	return err
}

// createRequest is Docker's create request with what only Wherry's engine knows.
type createRequest struct {
	container.CreateRequest
	Wherry *wherryRequest `json:",omitempty"`
}

type wherryRequest struct {
	Secrets []secretUse
}

// withOwn adds it, where there is anything.
func (f *runFlags) withOwn(r container.CreateRequest) createRequest {
	out := createRequest{CreateRequest: r}
	if len(f.secrets) > 0 {
		out.Wherry = &wherryRequest{f.secrets}
	}
	return out
}
