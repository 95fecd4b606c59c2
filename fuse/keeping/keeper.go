package keeping

import (
	"cmp"
	"log/slog"
	"os"
	"slices"
	"sync"

	"millrace.io/millrace/fuse/handover"
)

// mostKept bounds the sessions that are kept: ten times as many as a node has pods, with two descriptors each.
const mostKept = 4096

// Keeper keeps sessions of which it knows nothing but their names.
type Keeper struct {
	log  *slog.Logger
	most int

	// mu guards the rest.
	mu sync.Mutex
	// kept are the sessions by the volume's id.
	kept map[string]*kept
	// watcher is the driver that watches now, 0 for none, watchers how many did.
	watcher, watchers int
	// ending says that this process was asked to end.
	ending bool
}

// kept is one session.
type kept struct {
	mount string
	files []*os.File
	// watcher is the driver that has been seen to have it too, 0 for none.
	watcher int
}

// New makes a keeper that keeps nothing yet. most bounds its sessions, 0 for the default.
func New(most int, log *slog.Logger) *Keeper {
	return &Keeper{log: log, most: cmp.Or(most, mostKept), kept: make(map[string]*kept)}
}

// put keeps a session. It takes the files.
func (k *Keeper) put(r request, files []*os.File) error {
	err := r.check(true)
	if err == nil && len(files) != handles {
		err = handover.Errorf(handover.CodeInvalid, "put comes with %d descriptors, not %d", len(files), handles)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.kept[r.ID]
	if err == nil && old == nil && len(k.kept) >= k.most {
		err = handover.Errorf(handover.CodeUnavailable, "the keeper keeps %d volumes, as many as it may", len(k.kept))
	}
	if err != nil {
		handover.CloseAll(files)
		return err
	}
	if old != nil {
		handover.CloseAll(old.files)
	}
	k.kept[r.ID] = &kept{mount: r.Mount, files: files, watcher: k.watcher}
	return nil
}

// get gives copies of what is kept of a volume.
func (k *Keeper) get(r request) (reply, []*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	held := k.kept[r.ID]
	if held == nil {
		return reply{}, nil, handover.Errorf(handover.CodeNotFound, "volume %s is not kept", r.ID)
	}
	copies := make([]*os.File, 0, len(held.files))
	for _, f := range held.files {
		copied, err := handover.CopyFile(f)
		if err != nil {
			handover.CloseAll(copies)
			return reply{}, nil, err
		}
		copies = append(copies, copied)
	}
	held.watcher = k.watcher
	return reply{Mount: held.mount}, copies, nil
}

// drop closes what is kept of a volume.
func (k *Keeper) drop(r request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if held := k.kept[r.ID]; held != nil && (r.Mount == "" || r.Mount == held.mount) {
		handover.CloseAll(held.files)
		delete(k.kept, r.ID)
	}
}

// list is what is kept, in order.
func (k *Keeper) list() []Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]Kept, 0, len(k.kept))
	for id, held := range k.kept {
		all = append(all, Kept{ID: id, Mount: held.mount})
	}
	slices.SortFunc(all, func(a, b Kept) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// watched notes a driver that watches from now on, until gone is called.
func (k *Keeper) watched() (gone func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watchers++
	k.watcher = k.watchers
	number := k.watcher
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.watcher == number {
			k.watcher = 0
		}
	}
}

// leave lets the driver go that watches, unless this process ends too: then one of the two has to stay.
func (k *Keeper) leave() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending {
		return handover.Errorf(handover.CodeUnavailable, "the keeper is ending itself")
	}
	// What it has does not count any more.
	k.watcher = 0
	return nil
}

// end notes that this process is to end, and reports whether it may: another process has all that is kept.
func (k *Keeper) end() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ending = true
	for _, held := range k.kept {
		if k.watcher == 0 || held.watcher != k.watcher {
			return false
		}
	}
	return true
}

// closeAll closes what is kept.
func (k *Keeper) closeAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, held := range k.kept {
		handover.CloseAll(held.files)
		delete(k.kept, id)
	}
}
