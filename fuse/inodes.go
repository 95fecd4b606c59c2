package fuse

import (
	"encoding/binary"
	"sync"
)

// mostNumbers bounds the inode numbers that are remembered, some 20 bytes each. Beyond it, names that are listed and
// not looked up are told a number that another file may have too.
const mostNumbers = 1 << 22

// unknownNumber is the d_ino of an entry whose identity is not known (FUSE_UNKNOWN_INO).
const unknownNumber = 1<<32 - 1

// inodeNumbers gives the numbers by which programs tell files apart (st_ino and d_ino), where they are to fit 32 bits:
// programs of 32 bits without large files fail with EOVERFLOW on a larger one. A number is the identity folded, so that
// another process gives the same one. Where two identities fold alike, the later one moves to the next free number, and
// that is kept in the state. A nil table gives the identities themselves.
// D-172 says why.
type inodeNumbers struct {
	state *stateFile
	// mu guards the rest.
	mu sync.Mutex
	// owner is which identity has a number, moved the number of an identity that does not have its own.
	owner map[uint32]uint64
	moved map[uint64]uint32
}

func newInodeNumbers(state *stateFile) *inodeNumbers {
	return &inodeNumbers{state: state, owner: make(map[uint32]uint64), moved: make(map[uint64]uint32)}
}

// fold makes 32 bits of an identity, each of which hangs on two of its own.
func fold(id uint64) uint32 { return uint32(id) ^ uint32(id>>32) }

// of is the number of an identity.
func (t *inodeNumbers) of(id uint64) uint64 {
	if t == nil || id <= rootID {
		return id
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if number, ok := t.moved[id]; ok {
		return uint64(number)
	}
	number := fold(id)
	if t.free(number, id) {
		if len(t.owner) < mostNumbers {
			t.owner[number] = id
		}
		return uint64(number)
	}
	for !t.free(number, id) {
		number++
	}
	t.owner[number], t.moved[id] = id, number
	t.state.saveNumber(id, number)
	return uint64(number)
}

// free reports whether a number may be the identity's; mu is held.
func (t *inodeNumbers) free(number uint32, id uint64) bool {
	owner, taken := t.owner[number]
	return (!taken || owner == id) && number > rootID && number != unknownNumber
}

// load takes over the numbers that an earlier process gave: those that moved, and then those of the nodes that the
// kernel knows, which are their own.
func (t *inodeNumbers) load(nodes *nodeTable) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	err := t.state.each(recordNumber, func(r record) error {
		id, number := t.state.loadNumber(r)
		t.owner[number], t.moved[id] = id, number
		return nil
	})
	t.mu.Unlock()
	if err != nil {
		return err
	}
	for _, id := range nodes.ids() {
		t.of(id)
	}
	return nil
}

// Offsets in the record of an inode number.
const (
	numberID    = 8
	numberValue = 16
	numberSize  = 20
)

// saveNumber keeps the number of an identity that does not have its own.
func (s *stateFile) saveNumber(id uint64, number uint32) {
	r := s.alloc(numberSize)
	if r == 0 {
		return
	}
	b := s.bytes(r)
	binary.LittleEndian.PutUint64(b[numberID:], id)
	binary.LittleEndian.PutUint32(b[numberValue:], number)
	s.commit(r, recordNumber)
}

func (s *stateFile) loadNumber(r record) (id uint64, number uint32) {
	b := s.bytes(r)
	return binary.LittleEndian.Uint64(b[numberID:]), binary.LittleEndian.Uint32(b[numberValue:])
}
