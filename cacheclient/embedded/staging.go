package embedded

import "sync"

// staging is the memory for blocks that no tier takes: a small pool, the last resort of reads
// when the tiers are full or broken. A block stays until another needs its place, unless
// somebody is reading it.
type staging struct {
	mu sync.Mutex
	// free is closed and replaced when a block becomes free; guarded by mu.
	free chan struct{}
	// left is how many more blocks may be made; guarded by mu.
	left int
	// blocks are those that hold or await data, the oldest first; guarded by mu.
	blocks []*stagedBlock
}

// stagedBlock is one block in memory. users is guarded by staging.mu; filled by entry.mu.
type stagedBlock struct {
	entry  *entry
	block  int64
	buf    []byte
	filled int64
	// users counts who is filling or reading it.
	users int
}

func newStaging(bytes int64) *staging {
	return &staging{left: int(max(bytes/BlockSize, 2)), free: make(chan struct{})}
}

// take returns a block for e, used by the caller, with what it displaced removed from its entry;
// nil and a channel to wait for when every block is in use. It must not be called with an entry locked.
func (s *staging) take(e *entry, block int64) (*stagedBlock, <-chan struct{}) {
	s.mu.Lock()
	b := &stagedBlock{entry: e, block: block, users: 1}
	if s.left > 0 {
		s.left--
		b.buf = make([]byte, BlockSize)
		s.blocks = append(s.blocks, b)
		s.mu.Unlock()
		return b, nil
	}
	for i, old := range s.blocks {
		if old.users > 0 {
			continue
		}
		old.users = -1
		b.buf = old.buf
		s.blocks = append(append(s.blocks[:i:i], s.blocks[i+1:]...), b)
		s.mu.Unlock()
		old.entry.dropStaged(old)
		return b, nil
	}
	wait := s.free
	s.mu.Unlock()
	return nil, wait
}

// use marks a block as being read; false when its memory is already promised to another.
func (s *staging) use(b *stagedBlock) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users < 0 {
		return false
	}
	b.users++
	return true
}

// done ends a use.
func (s *staging) done(b *stagedBlock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users--; b.users == 0 {
		close(s.free)
		s.free = make(chan struct{})
	}
}
