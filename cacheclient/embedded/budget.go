package embedded

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// leastBlocks is what an active cache may hold whatever the others do: one block that is being read and
	// one that comes.
	leastBlocks = 2
	// idleAfter is how long memory that is not used is kept.
	idleAfter = 10 * time.Second
)

// Budget is the memory that the caches of a process bring bytes in through: the buffers of fetches, and the blocks
// that no tier takes. A cache takes what it needs as long as no other is short of memory; then
// it keeps its share, which is the whole divided by the caches that hold or want memory. Two blocks (2 MiB)
// each may have in any case, and only these may exceed the budget. What is not used for 10 seconds is given back.
//
// The caches that share a Budget share the bounds of what they remember too, beside it: 40 MiB of names with
// attributes, some 128 Ki, and 16 MiB of listings.
//
// A Budget needs no closing: with its caches closed it holds nothing.
// D-020 says why.
type Budget struct {
	// total is in blocks.
	total int
	// idle is idleAfter, but in tests.
	idle time.Duration
	// names and listed bound what the caches remember of the source.
	names, listed bound

	// mu guards the rest.
	mu sync.Mutex
	// used is how many blocks the members hold, most the largest value that it had. spare are buffers
	// that no member holds: used and they are together no more than total.
	used, most int
	spare      [][]byte
	// members are the caches that hold memory or wait for it.
	members map[*staging]struct{}
	// changed is closed and replaced when the waiters may find memory.
	changed chan struct{}
	waiters int
	// claimed is when memory was taken last; sweeping says that the timer which gives back runs.
	claimed  time.Time
	sweeping bool
}

// NewBudget makes a budget of so many bytes, at least 2 MiB.
func NewBudget(bytes int64) *Budget {
	return &Budget{
		total: int(max(bytes/BlockSize, leastBlocks)), idle: idleAfter,
		names: bound{most: maxKnownBytes}, listed: bound{most: maxListed},
		members: make(map[*staging]struct{}), changed: make(chan struct{}),
	}
}

// Size is the budget in bytes.
func (b *Budget) Size() int64 { return int64(b.total) * BlockSize }

// Used is the memory that is held now, in bytes.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.used+len(b.spare)) * BlockSize
}

// Most is the most memory that was ever in use at once, in bytes.
func (b *Budget) Most() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(b.most) * BlockSize
}

// share is how many blocks each member may keep when others want memory; mu is held.
func (b *Budget) share() int { return max(leastBlocks, b.total/max(1, len(b.members))) }

// wanted reports whether another member waits that has less than its share; mu is held.
func (b *Budget) wanted(but *staging, share int) bool {
	for m := range b.members {
		if m != but && m.waiting > 0 && m.held < share {
			return true
		}
	}
	return false
}

// full reports whether s has as many blocks filling as it may: half of its share is left for blocks that wait
// for their readers, or each would displace the one before. mu is held.
func (b *Budget) full(s *staging) bool { return s.filling >= max(1, b.share()/2) }

// claim gives a member memory for one block, and the block that loses its place for it, if one does. mu is held.
func (b *Budget) claim(s *staging) (buf []byte, displaced *stagedBlock) {
	share := b.share()
	if s.held >= share && b.wanted(s, share) {
		return nil, nil
	}
	if b.used < b.total {
		return b.allocate(s), nil
	}
	if s.held < share {
		displaced = b.surplus(share)
	}
	if displaced == nil {
		displaced = s.unused()
	}
	switch {
	case displaced != nil:
		return b.displace(displaced, s), displaced
	case s.held < leastBlocks:
		return b.allocate(s), nil
	}
	return nil, nil
}

// allocate takes a buffer that is not held, or makes one; mu is held.
func (b *Budget) allocate(s *staging) []byte {
	b.used++
	b.most = max(b.most, b.used)
	s.held++
	if n := len(b.spare); n > 0 {
		buf := b.spare[n-1]
		b.spare = b.spare[:n-1]
		return buf
	}
	return make([]byte, BlockSize)
}

// surplus is the oldest unused block of the member that has most above the share; mu is held.
func (b *Budget) surplus(share int) *stagedBlock {
	var victim *stagedBlock
	most := share
	for m := range b.members {
		if m.held <= most {
			continue
		}
		if u := m.unused(); u != nil {
			victim, most = u, m.held
		}
	}
	return victim
}

// displace takes a block that is not used from its owner and gives its memory to s. The caller
// drops it from its entry when mu is free. mu is held.
func (b *Budget) displace(old *stagedBlock, s *staging) []byte {
	buf := old.buf
	old.owner.remove(old)
	old.owner.held--
	b.retire(old.owner)
	b.members[s] = struct{}{}
	s.held++
	return buf
}

// put takes a buffer back from a member; mu is held.
func (b *Budget) put(s *staging, buf []byte) {
	b.used--
	s.held--
	if b.used+len(b.spare) < b.total {
		b.spare = append(b.spare, buf)
	}
	b.retire(s)
}

// retire takes a member that neither holds nor wants memory off the list; mu is held.
func (b *Budget) retire(s *staging) {
	if s.held == 0 && s.waiting == 0 {
		delete(b.members, s)
	}
}

// notify wakes the waiters for memory; mu is held.
func (b *Budget) notify() {
	if b.waiters > 0 {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// obtain waits until there is memory for a block of s; filling says that it is to be filled and then read.
func (b *Budget) obtain(ctx context.Context, s *staging, filling bool) ([]byte, error) {
	for waited := false; ; waited = true {
		buf, wait := b.try(s, filling)
		if buf != nil {
			if waited {
				// Members that stood back for this one need not any longer.
				b.mu.Lock()
				b.notify()
				b.mu.Unlock()
			}
			return buf, nil
		}
		err := wait(ctx)
		if err != nil {
			return nil, err
		}
	}
}

// try claims memory for a block, or else says that s wants some, and returns what waits for a change.
func (b *Budget) try(s *staging, filling bool) (buf []byte, wait func(context.Context) error) {
	buf, displaced, wait := b.claimOrWait(s, filling)
	if displaced != nil {
		displaced.entry.dropStaged(displaced)
	}
	return buf, wait
}

// claimOrWait is try, and returns the block that the memory was taken from.
func (b *Budget) claimOrWait(s *staging, filling bool) (
	buf []byte, displaced *stagedBlock, wait func(context.Context) error,
) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[s] = struct{}{}
	hungry := !filling || !b.full(s)
	if hungry {
		buf, displaced = b.claim(s)
	}
	if buf != nil {
		if filling {
			s.filling++
		}
		b.claimed = time.Now()
		s.used = b.claimed
		b.watch()
		return buf, displaced, nil
	}
	b.waiters++
	if hungry {
		s.waiting++
	}
	changed := b.changed
	return nil, displaced, func(ctx context.Context) error {
		defer b.waited(ctx, s, hungry)
		select {
		case <-changed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waited ends a wait of s for memory.
func (b *Budget) waited(ctx context.Context, s *staging, hungry bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiters--
	if hungry {
		s.waiting--
	}
	b.retire(s)
	if ctx.Err() != nil {
		b.notify()
	}
}

// watch has the timer run that gives idle memory back; mu is held.
func (b *Budget) watch() {
	if !b.sweeping {
		b.sweeping = true
		time.AfterFunc(b.idle, b.sweep)
	}
}

// sweep gives back what was not used for a while.
func (b *Budget) sweep() {
	for _, d := range b.idleNow() {
		d.entry.dropStaged(d)
	}
}

// idleNow takes the memory of what was not used for a while, and returns the blocks that lose theirs.
func (b *Budget) idleNow() (dropped []*stagedBlock) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for m := range b.members {
		if now.Sub(m.used) >= b.idle {
			dropped = append(dropped, m.drain()...)
		}
	}
	if now.Sub(b.claimed) >= b.idle {
		b.spare = nil
	}
	b.sweeping = false
	if b.used > 0 || len(b.spare) > 0 {
		b.watch()
	}
	return dropped
}

// staging is one cache's part of a Budget: the blocks that no tier took, the last resort of reads when the tiers are
// full or broken, and the buffers of fetches into a tier. A block stays until another needs its place, unless
// a reader has it. Its fields are guarded by Budget.mu.
type staging struct {
	b *Budget
	// held counts blocks and buffers, filling the blocks of fetches under way, waiting the callers that could use more.
	held, filling, waiting int
	// blocks are those that hold or await data, the oldest first.
	blocks []*stagedBlock
	// used is when memory was taken or read last.
	used time.Time
	// closed says that nothing is kept any longer.
	closed bool
}

// stagedBlock is one block in memory. users is guarded by Budget.mu; filled by entry.mu.
type stagedBlock struct {
	owner  *staging
	entry  *entry
	block  int64
	buf    []byte
	filled int64
	// users counts the fetches and readers that have it; negative when its memory is promised to another.
	users int
}

// take waits for a block for e, which the caller uses until filled. It must not be called with an
// entry locked.
func (s *staging) take(ctx context.Context, e *entry, block int64) (*stagedBlock, error) {
	buf, err := s.b.obtain(ctx, s, true)
	if err != nil {
		return nil, err
	}
	return s.hold(e, block, buf), nil
}

// takeNow is take where that does not have to wait, else nil.
func (s *staging) takeNow(e *entry, block int64) *stagedBlock {
	buf, wait := s.b.try(s, true)
	if buf == nil {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = wait(ended)
		return nil
	}
	return s.hold(e, block, buf)
}

// hold makes a block of a buffer that was obtained for it.
func (s *staging) hold(e *entry, block int64, buf []byte) *stagedBlock {
	sb := &stagedBlock{owner: s, entry: e, block: block, buf: buf, users: 1}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.blocks = append(s.blocks, sb)
	return sb
}

// filled ends the use of a block by the fetch that filled it, or failed to.
func (s *staging) filled(sb *stagedBlock) {
	s.b.mu.Lock()
	s.filling--
	s.b.notify()
	s.b.mu.Unlock()
	s.done(sb)
}

// buffer waits for a buffer of BlockSize bytes, which is to be returned.
func (s *staging) buffer(ctx context.Context) ([]byte, error) { return s.b.obtain(ctx, s, false) }

// giveBack returns a buffer.
func (s *staging) giveBack(buf []byte) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.put(s, buf)
	s.b.notify()
}

// use marks a block as being read; false when its memory is already promised to another.
func (s *staging) use(sb *stagedBlock) bool {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if sb.users < 0 {
		return false
	}
	sb.users++
	s.used = time.Now()
	return true
}

// done ends a use.
func (s *staging) done(sb *stagedBlock) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if sb.users--; sb.users > 0 {
		return
	}
	if s.closed {
		s.remove(sb)
		s.b.put(s, sb.buf)
	}
	s.b.notify()
}

// unused is the oldest block that is not used; Budget.mu is held.
func (s *staging) unused() *stagedBlock {
	for _, sb := range s.blocks {
		if sb.users == 0 {
			return sb
		}
	}
	return nil
}

// remove takes a block that is not used off the list, for good; Budget.mu is held.
func (s *staging) remove(sb *stagedBlock) {
	sb.users = -1
	if i := slices.Index(s.blocks, sb); i >= 0 {
		s.blocks = slices.Delete(s.blocks, i, i+1)
	}
}

// drain gives all memory back that is not used, and returns the blocks, to be dropped from their entries;
// Budget.mu is held.
func (s *staging) drain() []*stagedBlock {
	var dropped []*stagedBlock
	for sb := s.unused(); sb != nil; sb = s.unused() {
		s.remove(sb)
		s.b.used--
		s.held--
		dropped = append(dropped, sb)
	}
	s.b.retire(s)
	if len(dropped) > 0 {
		s.b.notify()
	}
	return dropped
}

// close gives everything back, what is on loan when the loan ends.
func (s *staging) close() {
	s.b.mu.Lock()
	s.closed = true
	dropped := s.drain()
	s.b.mu.Unlock()
	for _, sb := range dropped {
		sb.entry.dropStaged(sb)
	}
}

// window is how far ahead of a reader to fetch into memory, in bytes.
func (s *staging) window() int64 {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return int64(s.b.share()) * BlockSize / 8
}
