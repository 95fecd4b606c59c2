package fuse

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"sync"

	"millrace.io/millrace/cacheclient"
)

// freeRecords are the records that can be used again, by size.
type freeRecords struct {
	// mu guards bySize, and the end of the records in the state.
	mu     sync.Mutex
	bySize map[uint64][]record
}

func (f *freeRecords) put(r record, size uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bySize == nil {
		f.bySize = make(map[uint64][]record)
	}
	f.bySize[size] = append(f.bySize[size], r)
}

// alloc gives a record with room for n bytes, head included; 0 where the state is full. It stays free to
// a process that comes after us until it is committed.
func (s *stateFile) alloc(n int) record {
	size := recordSize(n)
	if size > recordMost {
		return 0
	}
	s.free.mu.Lock()
	defer s.free.mu.Unlock()
	if list := s.free.bySize[size]; len(list) > 0 {
		r := list[len(list)-1]
		s.free.bySize[size] = list[:len(list)-1]
		return r
	}
	end := s.u64(stateEnd).Load()
	if end+size > stateSize {
		s.tellFull()
		return 0
	}
	// The size before the end: a walk of the records must never meet one without.
	s.u32(end + 4).Store(uint32(size))
	s.u64(stateEnd).Store(end + size)
	return record(end)
}

// tellFull says once that there is no room.
func (s *stateFile) tellFull() {
	if !s.full.Swap(true) && s.onFull != nil {
		s.onFull()
	}
}

// recordSize rounds up: small records to the unit, others to powers of two, so that few sizes exist and
// free records fit others.
func recordSize(n int) uint64 {
	size := uint64(recordUnit)
	for size < uint64(n) {
		size += min(size, 4*recordUnit)
	}
	return size
}

// release makes a record free.
func (s *stateFile) release(r record) {
	if r == 0 {
		return
	}
	size := s.size(r)
	s.commit(r, recordFree)
	s.free.put(r, size)
}

// Offsets in the record of a node.
const (
	nodeParent  = 8
	nodeID      = 16
	nodeLookups = 24
	nodeSize    = 32
	nodeSec     = 40
	nodeNsec    = 48
	nodePerm    = 52
	nodeFlags   = 54
	nodeNameLen = 56
	nodeMarkLen = 58
	nodeName    = 60

	// The flags of a node: it is a directory; its source tells permissions.
	nodeIsDir     = 1
	nodePermKnown = 2
)

// saveNode keeps a node with its present lookups, and returns its record; 0 where there is no room, and
// then the node is lost to the next process.
func (s *stateFile) saveNode(n *node) record {
	var parent record
	if n.parent.id != rootID {
		// Without a record of its parent, its path could not be told.
		if parent = n.parent.saved; parent == 0 {
			return 0
		}
	}
	r := s.alloc(nodeName + len(n.name) + len(n.version))
	if r == 0 {
		return 0
	}
	b := s.bytes(r)
	le := binary.LittleEndian
	le.PutUint64(b[nodeParent:], uint64(parent))
	le.PutUint64(b[nodeID:], n.id)
	le.PutUint64(b[nodeLookups:], n.lookups)
	le.PutUint64(b[nodeSize:], uint64(n.size))
	putAttributes(b, n)
	le.PutUint16(b[nodeNameLen:], uint16(len(n.name)))
	le.PutUint16(b[nodeMarkLen:], uint16(len(n.version)))
	copy(b[nodeName:], n.name)
	copy(b[nodeName+len(n.name):], n.version)
	s.commit(r, recordNode)
	return r
}

// putAttributes writes what the source may change of a node.
func putAttributes(b []byte, n *node) {
	le := binary.LittleEndian
	le.PutUint64(b[nodeSec:], uint64(n.attrs.sec))
	le.PutUint32(b[nodeNsec:], n.attrs.nsec)
	le.PutUint16(b[nodePerm:], n.attrs.perm)
	var flags byte
	if n.dir {
		flags |= nodeIsDir
	}
	if n.attrs.permKnown {
		flags |= nodePermKnown
	}
	// In one step: a process that dies on the way must not leave a directory that is none.
	b[nodeFlags] = flags
}

// saveAttributes keeps the attributes of a node that has a record. A process that dies over it leaves some of either,
// until the node is looked up again.
func (s *stateFile) saveAttributes(n *node) {
	if n.saved != 0 {
		putAttributes(s.bytes(n.saved), n)
	}
}

// saveLookups keeps the number of lookups of a node that has a record.
func (s *stateFile) saveLookups(n *node) {
	if n.saved != 0 {
		s.u64(uint64(n.saved) + nodeLookups).Store(n.lookups)
	}
}

// loadNode reads a node, and which record its parent has.
func (s *stateFile) loadNode(r record) (n *node, parent record, err error) {
	b := s.bytes(r)
	le := binary.LittleEndian
	nameLen, markLen := int(le.Uint16(b[nodeNameLen:])), int(le.Uint16(b[nodeMarkLen:]))
	if nodeName+nameLen+markLen > len(b) {
		return nil, 0, fmt.Errorf("%w: the node at %d has a name of %d bytes", ErrState, r, nameLen)
	}
	n = newNode(nil, string(b[nodeName:nodeName+nameLen]), cacheclient.Info{
		ID:        le.Uint64(b[nodeID:]),
		Dir:       b[nodeFlags]&nodeIsDir != 0,
		Size:      int64(le.Uint64(b[nodeSize:])),
		Mode:      fs.FileMode(le.Uint16(b[nodePerm:])),
		ModeKnown: b[nodeFlags]&nodePermKnown != 0,
		Version:   string(b[nodeName+nameLen : nodeName+nameLen+markLen]),
	})
	n.attrs.sec, n.attrs.nsec = int64(le.Uint64(b[nodeSec:])), le.Uint32(b[nodeNsec:])
	n.lookups, n.saved = le.Uint64(b[nodeLookups:]), r
	return n, record(le.Uint64(b[nodeParent:])), nil
}

// modernizeNode adds what the first format did not tell: it had permissions of 0 where the source tells none.
func (s *stateFile) modernizeNode(r record) {
	b := s.bytes(r)
	if binary.LittleEndian.Uint16(b[nodePerm:]) != 0 {
		b[nodeFlags] |= nodePermKnown
	}
}

// Offsets in the record of a handle.
const (
	handleNumber  = 8
	handleNode    = 16
	handleUnique  = 24
	handleBacking = 32
	handleFlags   = 36
	handleSize    = 40

	// handleAnswered is the flag of a handle that the kernel was told of.
	handleAnswered = 1
)

// handle is one open of a file, as the state has it.
type handle struct {
	saved  record
	number uint64
	// node is the id of the file's node.
	node uint64
	// unique is the request that opened it. When the kernel sends it again, its answer was not seen.
	unique  uint64
	backing int32
	// answered says that the kernel was told of it, claimed that its request came again to this process; both are
	// guarded by openTable.mu.
	answered, claimed bool
}

// saveHandle keeps a handle and returns its record, 0 where there is no room.
func (s *stateFile) saveHandle(h *handle) record {
	r := s.alloc(handleSize)
	if r == 0 {
		return 0
	}
	b := s.bytes(r)
	le := binary.LittleEndian
	le.PutUint64(b[handleNumber:], h.number)
	le.PutUint64(b[handleNode:], h.node)
	le.PutUint64(b[handleUnique:], h.unique)
	le.PutUint32(b[handleBacking:], uint32(h.backing))
	le.PutUint32(b[handleFlags:], 0)
	s.commit(r, recordHandle)
	return r
}

// saveAnswered notes that the kernel is told of a handle.
func (s *stateFile) saveAnswered(h *handle) {
	if h.saved != 0 {
		s.u32(uint64(h.saved) + handleFlags).Store(handleAnswered)
	}
}

func (s *stateFile) loadHandle(r record) *handle {
	b := s.bytes(r)
	le := binary.LittleEndian
	return &handle{
		saved: r, number: le.Uint64(b[handleNumber:]), node: le.Uint64(b[handleNode:]),
		unique: le.Uint64(b[handleUnique:]), backing: int32(le.Uint32(b[handleBacking:])),
		answered: le.Uint32(b[handleFlags:])&handleAnswered != 0,
	}
}
