package image

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// A damaged database is set aside and named, and the engine starts without it: names come from images.json, a copy that follows each
// change, content from its files, and layers are unpacked anew into another folder. The old folder stays, since containers stand on it.

const namesFile = "images.json"

// places of a store's parts below root.
type places struct{ db, layers string }

// sound finds the store's parts, and sets aside what is damaged. restore says that names have to come from their copy.
func sound(root string, log func(error)) (p places, restore bool, err error) {
	p = places{db: filepath.Join(root, "images.db"), layers: currentLayers(root)}
	found := errors.Join(checkDB(p.db), checkDB(filepath.Join(p.layers, "metadata.db")), checkPresence(root, p))
	if found == nil {
		return p, false, nil
	}
	aside := fmt.Sprintf("%s.damaged-%d", p.db, time.Now().UnixNano())
	if err := os.Rename(p.db, aside); err != nil && !os.IsNotExist(err) {
		return p, false, fmt.Errorf("set the damaged image database aside: %w", err)
	}
	old := p.layers
	p.layers = nextLayers(root)
	log(fmt.Errorf("image database: %w: it is kept as %s; images are listed from %s and unpacked anew; layers of older containers stay in %s",
		found, aside, namesFile, old))
	return p, true, nil
}

// currentLayers is the folder of layers, the last of those that were begun.
func currentLayers(root string) string {
	dir, _ := layersFolders(root)
	return dir
}

// nextLayers is the one that is begun when that is damaged.
func nextLayers(root string) string {
	_, dir := layersFolders(root)
	return dir
}

func layersFolders(root string) (current, next string) {
	current = filepath.Join(root, "snapshots")
	for n := 2; ; n++ {
		next = filepath.Join(root, fmt.Sprintf("snapshots-%d", n))
		if _, err := os.Stat(next); err != nil {
			return current, next
		}
		current = next
	}
}

// checkPresence notices a database that has gone while what it speaks of is there.
func checkPresence(root string, p places) error {
	if _, err := os.Stat(filepath.Join(root, namesFile)); err != nil {
		return nil // nothing has had a name yet
	}
	for _, path := range []string{p.db, filepath.Join(p.layers, "metadata.db")} {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return fmt.Errorf("%s is not there any more: %w", path, errdefs.ErrDataLoss)
		}
	}
	return nil
}

// checkDB reads a database once through. A file that is not there is sound.
func checkDB(path string) (err error) {
	fi, statErr := os.Stat(path)
	if os.IsNotExist(statErr) {
		return nil
	}
	if statErr != nil {
		return statErr
	}
	if err := checkLength(path, fi.Size()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %v: %w", path, p, errdefs.ErrDataLoss)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 5 * time.Second, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return readThrough(b) })
	})
}

func readThrough(b *bolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			if child := b.Bucket(k); child != nil {
				return readThrough(child)
			}
		}
		return nil
	})
}

// checkLength holds a file against the number of pages that its header speaks of: pages that are missing at its end would be a fault of
// memory, since the file is mapped. (bbolt, page.go and meta.go: a 16 byte page header, then magic, version, page size, flags, root,
// freelist, first unused page, transaction.)
func checkLength(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	page := int64(os.Getpagesize())
	newest, pages := uint64(0), uint64(0)
	for at := int64(0); at <= page; at += page {
		var b [80]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			return fmt.Errorf("%d bytes are too few for a database: %w", size, errdefs.ErrDataLoss)
		}
		tx := binary.NativeEndian.Uint64(b[64:])
		if binary.NativeEndian.Uint32(b[16:]) == 0xED0CDAED && tx >= newest {
			newest, pages = tx, binary.NativeEndian.Uint64(b[56:])
		}
	}
	if pages == 0 || pages > uint64(size/page) {
		return fmt.Errorf("it has %d bytes of %d pages: %w", size, pages, errdefs.ErrDataLoss)
	}
	return nil
}

// copiedNames keeps a copy of all names beside the database.
type copiedNames struct {
	images.Store
	path       string
	provenance func(context.Context, ocispec.Descriptor) map[digest.Digest]map[string]string
	mu         sync.Mutex // one change and its copy at a time
}

func (c *copiedNames) Create(ctx context.Context, img images.Image) (images.Image, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, err := c.Store.Create(ctx, img)
	if err == nil {
		err = c.copy(ctx)
	}
	return out, err
}

func (c *copiedNames) Update(ctx context.Context, img images.Image, fields ...string) (images.Image, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out, err := c.Store.Update(ctx, img, fields...)
	if err != nil || len(fields) > 0 && !slices.Contains(fields, "target") {
		return out, err // labels are not copied
	}
	return out, c.copy(ctx)
}

func (c *copiedNames) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.Store.Delete(ctx, name, opts...); err != nil {
		return err
	}
	return c.copy(ctx)
}

// finish makes the copy that a kill cut off.
func (c *copiedNames) finish(ctx context.Context) error {
	if err := os.Remove(c.path + ".new"); os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("copy the names of images: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.copy(ctx)
}

type copiedName struct {
	Name   string             `json:"name"`
	Target ocispec.Descriptor `json:"target"`

	From map[digest.Digest]map[string]string `json:"from,omitempty"` // where it came from, as the policy wants to know
}

func (c *copiedNames) copy(ctx context.Context) error {
	list, err := c.List(ctx)
	if err != nil {
		return fmt.Errorf("copy the names of images: %w", err)
	}
	names := make([]copiedName, 0, len(list))
	for _, img := range list {
		names = append(names, copiedName{img.Name, img.Target, c.provenance(ctx, img.Target)})
	}
	b, err := json.MarshalIndent(names, "", "\t")
	if err != nil {
		return err
	}
	if err := replaceFile(c.path, b); err != nil {
		return fmt.Errorf("copy the names of images: %w", err)
	}
	return nil
}

// restore names images again from their copy, as far as their content is here.
func (s *store) restore(ctx context.Context, log func(error)) error {
	b, err := os.ReadFile(filepath.Join(s.root, namesFile))
	if os.IsNotExist(err) {
		return nil
	}
	var names []copiedName
	if err == nil {
		err = json.Unmarshal(b, &names)
	}
	if err != nil {
		log(fmt.Errorf("read the copy of the names of images: %w", err))
		return nil
	}
	ctx, done, err := s.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	for _, n := range names {
		err := s.adopt(ctx, n.Target)
		if err == nil {
			err = provenance{s}.restore(ctx, n.Target, n.From)
		}
		if err == nil {
			err = s.name(ctx, n.Name, n.Target)
		}
		if err != nil {
			log(fmt.Errorf("image %s is not whole any more: pull it again: %w", familiar(n.Name), err))
		}
	}
	return nil
}

// adopt takes content that lies in the files below root into the database.
func (s *store) adopt(ctx context.Context, d ocispec.Descriptor) error {
	if _, err := s.backend.Info(ctx, d.Digest); err != nil {
		return err
	}
	w, err := content.OpenWriter(ctx, s.content, content.WithRef("adopt-"+d.Digest.String()), content.WithDescriptor(d))
	if err == nil {
		err = errors.Join(w.Commit(ctx, d.Size, d.Digest), w.Close())
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
		return nil
	}
	if _, err := s.document(ctx, d); err != nil {
		return err
	}
	children, err := images.Children(ctx, s.content, d)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := s.adopt(ctx, c); err != nil && !(images.IsIndexType(d.MediaType) && errdefs.IsNotFound(err)) {
			return err // of an index, platforms may be missing
		}
	}
	return s.labelChildren(ctx, d)
}
