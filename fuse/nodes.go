package fuse

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
)

// rootID is the node id of the root, fixed by the protocol.
const rootID = cacheclient.RootID

// errCollision says that two paths have the same identity. It reaches applications as EIO.
var errCollision = errors.New("two files have the same identity")

// node is one version of a file, or a directory, that the kernel knows. What says which one it is never changes. A
// node keeps its parent, so that its path can be told even where the parent's FORGET overtakes its own.
type node struct {
	parent  *node
	name    string
	version string
	id      uint64
	size    int64
	// attrs are guarded by nodeTable.mu.
	attrs attributes
	// lookups is how often the kernel was given this node since it last forgot it; guarded by
	// nodeTable.mu.
	lookups uint64
	// children is how many nodes have this one for a parent, saved its record in the state, 0 where it has none,
	// and dropped says that it is not needed any more; guarded by nodeTable.mu.
	children int
	saved    record
	dropped  bool
	dir      bool
}

// attributes are what a source may change of a node without making another version of it.
type attributes struct {
	// sec and nsec are the modification time, the zero time's where the source does not tell.
	sec  int64
	nsec uint32
	// perm is meaningless where permKnown is false: the source tells no permissions.
	perm      uint16
	permKnown bool
}

// attributesOf are those that the client told.
func attributesOf(info cacheclient.Info) attributes {
	return attributes{
		sec: info.ModTime.Unix(), nsec: uint32(info.ModTime.Nanosecond()),
		perm: uint16(info.Mode.Perm()), permKnown: info.ModeKnown,
	}
}

// modTime is the modification time, zero where the source does not tell.
func (a attributes) modTime() time.Time {
	return time.Unix(a.sec, int64(a.nsec))
}

// path is the node's path from the root, "" for the root itself.
func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	return path.Join(n.parent.path(), n.name)
}

// child is the path of a name in the directory n.
func (n *node) child(name string) string {
	return path.Join(n.path(), name)
}

// info is the node as the client described it last; nodeTable.mu is held.
func (n *node) info() cacheclient.Info {
	return cacheclient.Info{
		Path:      n.path(),
		ID:        n.id,
		Dir:       n.dir,
		Size:      n.size,
		ModTime:   n.attrs.modTime(),
		Mode:      fs.FileMode(n.attrs.perm),
		ModeKnown: n.attrs.permKnown,
		Version:   n.version,
	}
}

// newNode makes a node of what the client told, without any lookup.
func newNode(parent *node, name string, info cacheclient.Info) *node {
	return &node{
		parent:  parent,
		name:    name,
		version: info.Version,
		id:      info.ID,
		size:    max(info.Size, 0),
		attrs:   attributesOf(info),
		dir:     info.Dir,
	}
}

// nodeTable holds the nodes that the kernel knows, by id, and keeps them in the state.
type nodeTable struct {
	state *stateFile
	// mu guards the rest, and what of the nodes may change.
	mu    sync.RWMutex
	nodes map[uint64]*node
}

func newNodeTable(state *stateFile) *nodeTable {
	root := newNode(nil, "", cacheclient.Info{ID: rootID, Dir: true})
	return &nodeTable{
		state: state,
		nodes: map[uint64]*node{rootID: root},
	}
}

// load takes over the nodes that an earlier process knew. A node that the kernel has forgotten is among them
// only as the parent of others.
func (t *nodeTable) load() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	loaded, parents := make(map[record]*node), make(map[*node]record)
	err := t.state.each(recordNode, func(r record) error {
		n, parent, err := t.state.loadNode(r)
		if err != nil {
			return err
		}
		loaded[r], parents[n] = n, parent
		return nil
	})
	if err != nil {
		return err
	}
	for n, r := range parents {
		n.parent = t.nodes[rootID]
		if r != 0 {
			n.parent = loaded[r]
		}
		if n.parent == nil || !n.parent.dir || n.id <= rootID {
			return fmt.Errorf("%w: the node at %d has no parent that could be", ErrState, n.saved)
		}
		n.parent.children++
		if n.lookups > 0 {
			t.nodes[n.id] = n
		}
	}
	for _, n := range loaded {
		if !n.rooted() {
			return fmt.Errorf("%w: the node at %d is its own ancestor", ErrState, n.saved)
		}
	}
	for _, n := range loaded {
		t.drop(n)
	}
	return nil
}

// deepest is how many directories deep a node of a saved state may be: PATH_MAX has no room for more.
const deepest = 4096

// rooted reports whether the node's parents lead to the root.
func (n *node) rooted() bool {
	for range deepest {
		if n.parent == nil {
			return true
		}
		n = n.parent
	}
	return false
}

// drop gives back the record of a node that neither the kernel nor another node needs, and then looks at its
// parent. mu is held.
func (t *nodeTable) drop(n *node) {
	for n.parent != nil && n.lookups == 0 && n.children == 0 && !n.dropped {
		t.state.release(n.saved)
		n.saved, n.dropped = 0, true
		n = n.parent
		n.children--
	}
}

// get returns the node, nil where the kernel is not known to have it.
func (t *nodeTable) get(id uint64) *node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.nodes[id]
}

// info is the node as the client described it last.
func (t *nodeTable) info(n *node) cacheclient.Info {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return n.info()
}

// attributes are the node's as the client told them last.
func (t *nodeTable) attributes(n *node) attributes {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return n.attrs
}

// update gives the node the attributes that the client tells of it now, and reports whether they are others. An info
// of another version, or of what else came to the path, changes nothing.
func (t *nodeTable) update(n *node, info cacheclient.Info) bool {
	if info.ID != n.id || info.Dir != n.dir {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set(n, attributesOf(info))
}

// set changes a node's attributes and reports whether they are others; mu is held.
func (t *nodeTable) set(n *node, attrs attributes) bool {
	if n.attrs == attrs {
		return false
	}
	n.attrs = attrs
	t.state.saveAttributes(n)
	return true
}

// pathOf is the path of a node, "" where the kernel is not known to have it.
func (t *nodeTable) pathOf(id uint64) string {
	if n := t.get(id); n != nil {
		return n.path()
	}
	return ""
}

// add counts one lookup of the node that info names below parent, and makes the node
// where it is new. One that is known gets the attributes that the source tells now. It returns errCollision where the
// identity belongs to another path.
func (t *nodeTable) add(parent *node, name string, info cacheclient.Info) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[info.ID]
	if n == nil {
		n = newNode(parent, name, info)
		n.lookups = 1
		n.saved = t.state.saveNode(n)
		parent.children++
		t.nodes[info.ID] = n
		return n, nil
	} else if n.parent == nil || n.name != name || n.parent.id != parent.id || n.dir != info.Dir {
		return nil, errCollision
	}
	n.lookups++
	t.state.saveLookups(n)
	t.set(n, attributesOf(info))
	return n, nil
}

// forget takes count lookups back, and drops the node when none is left, which it reports. The root stays.
func (t *nodeTable) forget(id, count uint64) (dropped bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id]
	if n == nil || id == rootID {
		return false
	}
	n.lookups -= min(count, n.lookups)
	t.state.saveLookups(n)
	if n.lookups > 0 {
		return false
	}
	delete(t.nodes, id)
	t.drop(n)
	return true
}

// ids are those of the nodes.
func (t *nodeTable) ids() []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.nodes))
}

// known is the number of nodes, the root included.
func (t *nodeTable) known() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.nodes)
}
