package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"wherry.dev/wherry/internal/access"
	"wherry.dev/wherry/internal/image"
	"wherry.dev/wherry/internal/rootfs"
	"wherry.dev/wherry/internal/spec"
	"wherry.dev/wherry/internal/task"
)

// Record is what is kept of a container on disk (<Root>/containers/<ID>/config.json). A Record in memory is never changed: a change makes
// a new one. What its pointers point at is replaced, not written to.
type Record struct {
	ID         string
	Name       string // without Docker's leading slash
	Created    time.Time
	Image      image.Image // as it was at creation; Config.Image is the reference as given
	Config     *container.Config
	HostConfig *container.HostConfig
	Networks   map[string]*network.EndpointSettings // what was asked for, by network
	IDMap      rootfs.IDMap
	OwnRange   bool // IDMap is this container's own, not one that it shares
	Mounts     []spec.Mount
	Secrets    []SecretUse `json:",omitempty"`
	Links      []Link      `json:",omitempty"`
	Log        task.LogOptions

	Status       Status
	Pid          int    `json:",omitempty"`
	ExitCode     int    `json:",omitempty"`
	OOMKilled    bool   `json:",omitempty"`
	OOMVictim    string `json:",omitempty"`
	Error        string `json:",omitempty"`
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int    `json:",omitempty"`
	Stopped      bool   `json:",omitempty"` // by the user: policies let it be
	Held         bool   `json:",omitempty"` // it is paused for something that the engine does, not by the user
	HasRun       bool   `json:",omitempty"` // the writable layer may hold something
	Lives        int    `json:",omitempty"` // how often it was started: a task says which start it is of, whatever the clock did
	Restarted    string `json:",omitempty"` // the writable layer of the last start that was not the first: "kept" or "fresh"
	WithVolumes  bool   `json:",omitempty"` // its removal, which is under way, takes its anonymous volumes, too
	Cgroup       string `json:",omitempty"` // of the last start
	BootID       string `json:",omitempty"` // of the host's life in which it was last started

	Health *container.Health `json:",omitempty"` // of one that has ended

	Replaces *Replacement `json:",omitempty"` // it is taking another container's place

	Owner   string `json:",omitempty"` // who made it, as access.Caller.ID names them
	Limited bool   `json:",omitempty"` // and may use only what is theirs
}

// scope is how far the container itself reaches, whoever starts it.
func (r *Record) scope() access.Scope { return access.Scope{Owner: r.Owner, Limited: r.Limited} }

// Path and Args are the command as inspect shows it.
func (r *Record) command() []string {
	return append(append([]string{}, r.Config.Entrypoint...), r.Config.Cmd...)
}

func (r *Record) short() string { return r.ID[:12] }

// restartKey is of the annotation, or of the label in a request, that asks for restarts from the image's files.
const restartKey = "wherry.restart"

// fresh says that every start after the first begins with a clean writable layer.
func (r *Record) fresh() bool { return r.HostConfig.Annotations[restartKey] == "fresh" }

const recordFile = "config.json"

// newSuffix ends the name of the file that a record is written to before it takes the place of the last one.
const newSuffix = ".new"

// disposable marks the folder of an --rm container: its record is not synced, and goes with what a power cut leaves of it. It is a bit of the
// folder's mode, as a file would have to be made and deleted.
const disposable = os.ModeSticky

func isDisposable(dir string) bool {
	fi, err := os.Lstat(dir)
	return err == nil && fi.Mode()&disposable != 0
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// write puts the record into dir by write and rename; durable ones are on the disk when write returns. The two files of earlier writes
// change places, so that no write after the second one makes or deletes a file: on a busy file system that is the slow part.
func (r *Record) write(dir string, durable bool) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record of container %s: %w", r.ID, err)
	}
	path := filepath.Join(dir, recordFile)
	f, err := os.OpenFile(path+newSuffix, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the record of container %s: %w", r.ID, err)
	}
	if _, err = f.Write(b); err == nil {
		err = f.Truncate(int64(len(b))) // afterwards: the blocks that it has are its own on a full disk, too
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, path+newSuffix, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	}
	if err != nil && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)) { // the first one, or a file system that cannot exchange
		err = os.Rename(path+newSuffix, path)
	}
	if err == nil && durable {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write the record of container %s: %w", r.ID, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readRecord reads a container's record and checks that it is whole.
func readRecord(dir string) (*Record, error) { return readRecordFile(dir, recordFile) }

func readRecordFile(dir, name string) (*Record, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	switch {
	case r.ID != filepath.Base(dir):
		return nil, fmt.Errorf("%s is the record of another container, %q", filepath.Join(dir, name), r.ID)
	case r.Config == nil || r.HostConfig == nil || r.Name == "" || transitions[r.Status] == nil:
		return nil, fmt.Errorf("%s is not complete", filepath.Join(dir, name))
	}
	return &r, nil
}

// restored takes the record that a damaged one has replaced, where it is still there.
func restored(dir string, records *[]*Record) bool {
	r, err := readRecordFile(dir, recordFile+".new")
	if err == nil {
		err = r.write(dir, false)
	}
	if err != nil {
		return false
	}
	*records = append(*records, r)
	return true
}

// found is what lies in the folder of containers.
type found struct {
	records    []*Record
	unfinished []string // folders without a record: of creations that were cut short
	damaged    []error
}

// readRecords reads all records below dir. Disposable containers with a damaged one go; other damaged ones are renamed aside and named.
func readRecords(dir string) (f found, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return f, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() || strings.Contains(e.Name(), ".") {
			continue
		}
		r, err := readRecord(path)
		switch {
		case err == nil:
			f.records = append(f.records, r)
		case errors.Is(err, fs.ErrNotExist):
			f.unfinished = append(f.unfinished, path)
		case restored(path, &f.records):
			f.damaged = append(f.damaged, fmt.Errorf("the record of container %s was damaged, its state before the last change is taken: %w", e.Name(), err))
		case isDisposable(path):
			f.damaged = append(f.damaged, rootfs.RemoveTree(path))
		default:
			aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix())
			f.damaged = append(f.damaged, fmt.Errorf("container %s is set aside as %s: %w", e.Name(), aside, err), os.Rename(path, aside))
		}
	}
	return f, nil
}
