package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

// phase is how far a volume has come.
type phase string

const (
	// phasePartial is a volume that is being staged or unstaged. One that is found at the start was
	// interrupted, and is undone.
	phasePartial phase = "partial"
	// phaseStaged is a volume whose mount was served when the file was written.
	phaseStaged phase = "staged"
)

// record is all that is kept of a volume on this node. It is JSON in a file, so fields are added, and never
// renamed or given another meaning.
// D-040 says why.
type record struct {
	Phase phase `json:"phase"`
	// Volume has the staging path in Dir, and the secrets.
	Volume handover.Volume `json:"volume"`
	// SELinuxContext labels the mount, "" for the policy's default.
	SELinuxContext string `json:"seLinuxContext,omitempty"`
	// Ephemeral is a mount that was staged by a publishing, and goes with the last one.
	Ephemeral bool `json:"ephemeral,omitempty"`
	// Of is the volume whose view this is, "" for a volume.
	Of string `json:"of,omitempty"`
	// Namespace is that of the pods, and so of the claim, "" where it was not told.
	Namespace string `json:"namespace,omitempty"`
	// Minor is the minor number of the mount's device, 0 where it is not known; the major is 0.
	Minor int `json:"minor,omitempty"`
	// Connection is what tells the mount's connection from a later one of the same minor number; zero where the kernel
	// did not tell.
	Connection mountpoint.Connection `json:"connection,omitzero"`
	// Mount names this mount of the volume, by another name each time it is made: what the keeper keeps by another one
	// is stale. "" is a mount that the keeper was never given.
	Mount string `json:"mount,omitempty"`
	// Targets are where the volume is published, in the order of publishing.
	Targets []target `json:"targets,omitempty"`
}

// target is a place where a volume is published.
type target struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Alone is a target beside which there may be no other one (SINGLE_NODE_SINGLE_WRITER).
	Alone bool `json:"alone,omitempty"`
	// Pod is whose volume it is, where the orchestrator told.
	Pod pod `json:"pod,omitzero"`
	// Lost is about the mount that the pod began with, where no process serves that any more.
	Lost lost `json:"lost,omitzero"`
}

// sameUse reports whether two targets are published in the same way.
func (t target) sameUse(o target) bool { return t.ReadOnly == o.ReadOnly && t.Alone == o.Alone }

// target finds the target at the path, nil where the volume is not published there.
func (r record) target(path string) *target {
	i := slices.IndexFunc(r.Targets, func(t target) bool { return t.Path == path })
	if i < 0 {
		return nil
	}
	return &r.Targets[i]
}

// without is a copy of the record that is not published at the path.
func (r record) without(path string) record {
	r.Targets = slices.DeleteFunc(slices.Clone(r.Targets), func(t target) bool { return t.Path == path })
	return r
}

// with is a copy of the record that is published at one target more.
func (r record) with(t target) record {
	r.Targets = append(slices.Clone(r.Targets), t)
	return r
}

// shelf keeps one JSON file for each of a kind of thing, and a copy in memory. A file that put returned for is
// there after a crash, whole. What it gives is shared and must not be changed.
type shelf[T any] struct {
	dir string

	// mu guards items.
	mu sync.RWMutex
	// items are by id.
	items map[string]T
	// damaged are the files that could not be read, which were put aside; they do not change.
	damaged []string
}

// stored is a file of a shelf.
type stored[T any] struct {
	ID   string `json:"id"`
	Item T      `json:"item"`
}

// damagedSuffix is added to the name of a file that cannot be read.
const damagedSuffix = ".damaged"

// openShelf reads the files of the directory, which it makes where it is missing. A file that cannot be read
// is put aside: the volumes in the others must not wait until it is mended.
func openShelf[T any](dir string) (*shelf[T], error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	s := &shelf[T]{dir: dir, items: make(map[string]T, len(entries))}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tempPrefix):
			// The process that wrote it was killed before it counted.
			_ = os.Remove(path)
		case strings.HasSuffix(e.Name(), damagedSuffix):
			s.damaged = append(s.damaged, path)
		case strings.HasSuffix(e.Name(), ".json") && e.Type().IsRegular():
			if err := s.load(path); err != nil {
				if err := os.Rename(path, path+damagedSuffix); err != nil {
					return nil, fmt.Errorf("state file %s: %w", path, err)
				}
				s.damaged = append(s.damaged, path+damagedSuffix)
			}
		}
	}
	return s, nil
}

// load reads one file.
func (s *shelf[T]) load(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var item stored[T]
	if err := json.Unmarshal(text, &item); err != nil {
		return err
	}
	if item.ID == "" || s.path(item.ID) != path {
		return errors.New("its name does not fit the id in it")
	}
	s.items[item.ID] = item.Item
	return nil
}

// tempPrefix begins the name of a file that is being written: renameio's.
const tempPrefix = "."

// path is the file of the id, which may have any characters.
func (s *shelf[T]) path(id string) string { return filepath.Join(s.dir, fileName(id)+".json") }

// fileName is a name for files that have to do with the id, which may have any characters.
func fileName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// get is the item of the id, and whether there is one.
func (s *shelf[T]) get(id string) (T, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	item, ok := s.items[id]
	return item, ok
}

// ids are all ids, sorted.
func (s *shelf[T]) ids() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := make([]string, 0, len(s.items))
	for id := range s.items {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// put keeps the item. Callers see to it that no other puts or drops the same id meanwhile.
func (s *shelf[T]) put(id string, item T) error {
	text, err := json.Marshal(stored[T]{ID: id, Item: item})
	if err == nil {
		err = writeFile(s.path(id), text)
	}
	if err != nil {
		return fmt.Errorf("writing the state of %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items[id] = item
	return nil
}

// drop forgets the item. One that is not there is no error.
func (s *shelf[T]) drop(id string) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the state of %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.items, id)
	return nil
}

// writeFile replaces the file with a mode of 0600, so that a crash leaves the old or the new text.
func writeFile(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, text, 0o600, renameio.WithTempDir(dir),
		renameio.WithStaticPermissions(0o600)); err != nil {
		return err
	}
	// The name is durable only with its directory.
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
