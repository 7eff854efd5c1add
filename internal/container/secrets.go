package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/secret"
	"wherry.dev/wherry/internal/spec"
)

// SecretUse is a secret or config that a container is given. It never holds the value.
type SecretUse struct {
	Kind   secret.Kind // "": a secret
	ID     string      `json:",omitempty"`
	Name   string
	Target string // the file inside, or with Env the variable; "" follows from the name
	Env    bool   `json:",omitempty"`
	UID    uint32 `json:",omitempty"`
	GID    uint32 `json:",omitempty"`
	Mode   uint32 // of the file; 0: 0444
}

// secretsInside is where secrets are found when nothing else is said.
const secretsInside = "/run/secrets"

// stores are the services that secrets and configs come from.
func (o *Options) store(kind secret.Kind) (*secret.Service, error) {
	of := o.Secrets
	if kind == secret.Config {
		of = o.Configs
	}
	if of == nil {
		return nil, fmt.Errorf("this engine keeps no %ss", kind)
	}
	return of, nil
}

// secrets finds what the container is to be given, and keeps it from being removed.
func (n *creating) secrets(context.Context) error {
	n.onUndo(func() { n.s.o.releaseSecrets(n.r.ID) })
	if n.r.Limited && len(n.q.Secrets) > 0 {
		return fail(errdefs.ErrPermissionDenied, "the engine's secrets and configs are for those who may do everything: the rules in %s give you your own containers", access.Path)
	}
	taken := map[string]bool{}
	for _, use := range n.q.Secrets {
		if use.Kind == "" {
			use.Kind = secret.Secret
		}
		if use.Kind != secret.Secret && use.Kind != secret.Config {
			return invalid("%q is neither secret nor config", use.Kind)
		}
		store, err := n.s.o.store(use.Kind)
		if err != nil {
			return err
		}
		if use.ID, err = store.Acquire(use.Name, n.r.ID); err != nil {
			return err
		}
		if err := use.complete(); err != nil {
			return err
		}
		if at := fmt.Sprint(use.Env, use.Target); taken[at] {
			return invalid("two secrets or configs have the target %s: give one of them another (target=)", use.Target)
		} else {
			taken[at] = true
		}
		for _, m := range n.r.Mounts {
			if !use.Env && (m.Destination == use.Target || m.Destination == secretsInside && use.inside()) {
				return invalid("the %s %s is to be found at %s, and so is a mount: give one of them another target", use.Kind, use.Name, use.Target)
			}
		}
		n.r.Secrets = append(n.r.Secrets, use)
	}
	return nil
}

// complete fills in what was left out, and checks the rest.
func (u *SecretUse) complete() error {
	if u.Env {
		if u.Target == "" {
			u.Target = u.Name
		}
		if strings.ContainsAny(u.Target, "=\x00") {
			return invalid("the %s %s cannot be the variable %q", u.Kind, u.Name, u.Target)
		}
		return nil
	}
	switch {
	case u.Target == "" && u.Kind == secret.Config:
		u.Target = "/" + u.Name
	case u.Target == "":
		u.Target = path.Join(secretsInside, u.Name)
	case !path.IsAbs(u.Target) && u.Kind == secret.Config:
		u.Target = "/" + u.Target
	case !path.IsAbs(u.Target):
		u.Target = secretsInside + "/" + u.Target
	}
	u.Target = path.Clean(u.Target)
	if u.Target == "/" || u.Target == secretsInside || strings.Contains(u.Target, "\x00") {
		return invalid("the %s %s cannot be the file %s", u.Kind, u.Name, u.Target)
	}
	if u.Mode == 0 {
		u.Mode = 0o444
	}
	if u.Mode&^0o777 != 0 {
		return invalid("the mode %o of the %s %s: it goes up to 777", u.Mode, u.Kind, u.Name)
	}
	return nil
}

// inside says that it lies below /run/secrets.
func (u *SecretUse) inside() bool { return strings.HasPrefix(u.Target, secretsInside+"/") }

// releaseSecrets gives back what a container was given.
func (o *Options) releaseSecrets(id string) {
	for _, s := range []*secret.Service{o.Secrets, o.Configs} {
		if s != nil {
			s.Release(id)
		}
	}
}

// keepSecrets claims them again for a container of an earlier life.
func keepSecrets(s *Service, r *Record) {
	for _, use := range r.Secrets {
		store, err := s.o.store(use.Kind)
		if err == nil {
			_, err = store.Acquire(use.ID, r.ID)
		}
		if err != nil {
			s.log(fmt.Errorf("the %s %s of container %s: %w", use.Kind, use.Name, r.Name, err))
		}
	}
}

// secretsDir is where their files are attached while a start clones them, and nowhere else on the host.
func (o *Options) secretsDir(id string) string { return filepath.Join(o.State, "secrets", id) }

// showSecrets puts the values where the container will find them: on a file system of its own in memory, which is never swapped out, or in
// its environment.
func (n *starting) showSecrets(context.Context) error {
	if len(n.r.Secrets) == 0 {
		return nil
	}
	var files []SecretUse
	for _, use := range n.r.Secrets {
		if !use.Env {
			files = append(files, use)
		}
	}
	var err error
	if n.input.SecretEnv, err = n.s.o.secretEnv(n.r); err != nil || len(files) == 0 {
		return err
	}
	return (&showing{starting: n}).files(files)
}

// value reads the value of one.
func (o *Options) value(use SecretUse) ([]byte, error) {
	store, err := o.store(use.Kind)
	if err != nil {
		return nil, err
	}
	b, err := store.Value(use.ID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", use.Name, err)
	}
	return b, nil
}

// secretEnv are the variables that hold secrets.
func (o *Options) secretEnv(r *Record) ([]string, error) {
	var out []string
	for _, use := range r.Secrets {
		if !use.Env {
			continue
		}
		b, err := o.value(use)
		if err != nil {
			return nil, err
		}
		if strings.Contains(string(b), "\x00") {
			return nil, invalid("the %s %s has zero bytes, which no variable can hold: give it as a file (type=mount)", use.Kind, use.Name)
		}
		out = append(out, use.Target+"="+string(b))
	}
	return out, nil
}

// showing puts files of secrets onto their file system.
type showing struct {
	*starting
	root *os.Root
}

func (n *showing) files(files []SecretUse) error {
	made, err := secretMemory()
	if err != nil {
		return fmt.Errorf("make a file system in memory for secrets: %w", err)
	}
	defer made.Close()
	at := filepath.Join(n.s.o.secretsDir(n.r.ID), "0")
	if err := os.MkdirAll(at, 0o700); err != nil {
		return fmt.Errorf("make the place of secrets: %w", err)
	}
	if err := unix.MoveMount(int(made.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the secrets: %w", err)
	}
	if n.root, err = os.OpenRoot(at); err != nil {
		return err
	}
	defer n.root.Close()
	whole := n.wholeDir()
	if whole {
		if err := n.makeDir("dir"); err != nil {
			return err
		}
	}
	for i, use := range files {
		name := fmt.Sprint("file", i)
		if whole && use.inside() {
			name = filepath.Join("dir", strings.TrimPrefix(use.Target, secretsInside+"/"))
		}
		if err := n.write(name, use); err != nil {
			return fmt.Errorf("show the %s %s: %w", use.Kind, use.Name, err)
		}
		if whole && use.inside() {
			continue
		}
		if err := n.show(name, use.Target); err != nil {
			return err
		}
	}
	if whole {
		return n.show("dir", secretsInside)
	}
	return nil
}

// wholeDir says that /run/secrets can be a mount as a whole: something is in it, and nothing else is mounted there.
func (n *showing) wholeDir() bool {
	for _, m := range n.r.Mounts {
		if strings.HasPrefix(m.Destination, secretsInside+"/") {
			return false
		}
	}
	for _, use := range n.r.Secrets {
		if !use.Env && use.inside() {
			return true
		}
	}
	return false
}

func (n *showing) makeDir(name string) error {
	if err := n.root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return n.root.Lchown(name, n.r.IDMap.Host(0), n.r.IDMap.Host(0))
}

// write makes the file with the owner that it has inside.
func (n *showing) write(name string, use SecretUse) error {
	var missing []string
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if _, err := n.root.Lstat(dir); err != nil {
			missing = append(missing, dir)
		}
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := n.makeDir(missing[i]); err != nil {
			return err
		}
	}
	value, err := n.s.o.value(use)
	if err != nil {
		return err
	}
	f, err := n.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	return errors.Join(err, f.Chown(n.r.IDMap.Host(int(use.UID)), n.r.IDMap.Host(int(use.GID))), f.Chmod(os.FileMode(use.Mode)), f.Close())
}

// show has the runtime bind one, by an open file.
func (n *showing) show(name, target string) error {
	f, err := n.root.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	n.input.Secrets = append(n.input.Secrets, spec.SecretMount{Source: n.hold(f), Destination: target})
	return nil
}

// SecretsSource is what mountinfo says that these file systems come from.
const SecretsSource = "wherry-secrets"

// secretMemory makes the file system, attached nowhere. Kernels before 6.4 cannot keep a tmpfs from being swapped out: they get a ramfs,
// which never is, and whose size the size of the secrets bounds.
func secretMemory() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err = unix.FsconfigSetFlag(fs, "noswap"); err != nil {
		unix.Close(fs)
		if fs, err = unix.Fsopen("ramfs", unix.FSOPEN_CLOEXEC); err != nil {
			return nil, err
		}
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", SecretsSource); err != nil {
		return nil, err
	}
	if err := unix.FsconfigSetString(fs, "mode", "755"); err != nil {
		return nil, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(m), "secrets"), nil
}

// hideSecrets takes them away from the host again: the container has clones of its own.
func (n *starting) hideSecrets() error { return detachImages(n.s.o.secretsDir(n.r.ID)) }
