package embedded

import (
	"maps"
	"math/bits"
	"slices"
)

// BlockSize is the unit of caching in bytes: what one random read costs the source at the most,
// and what one slot of the state vouches for.
const BlockSize = 1 << 20

// maxRun is the length of one request to the source in blocks: long enough that the time to the
// first byte is small beside it, short enough that several run side by side.
const maxRun = 8

// blocksIn is how many blocks a file of that size has.
func blocksIn(size int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/BlockSize + 1
}

// run is the blocks [first, last).
type run struct{ first, last int64 }

func (r run) len() int64 { return r.last - r.first }

// has reports whether the block is one of the run's.
func (r run) has(block int64) bool { return block >= r.first && block < r.last }

// cover is the run of blocks that holds the bytes [from, to) of a file of that size.
func cover(from, to, size int64) run {
	to = min(to, size)
	if from >= to {
		return run{}
	}
	return run{from / BlockSize, blocksIn(to)}
}

// bytes is how many bytes of a file of that size the run holds.
func (r run) bytes(size int64) int64 {
	return min(r.last*BlockSize, size) - min(r.first*BlockSize, size)
}

// charge is what the run costs a tier: whole pages.
func (r run) charge(size int64) int64 { return pages(r.bytes(size)) }

// pages rounds bytes up to whole pages.
func pages(bytes int64) int64 { return (bytes + statePage - 1) / statePage * statePage }

// missing cuts the blocks of want for which busy is false into runs of at most longest
// blocks, in order.
func missing(want run, longest int64, busy func(block int64) bool) []run {
	var runs []run
	for b := want.first; b < want.last; b++ {
		if busy(b) {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].last == b && runs[n-1].len() < longest {
			runs[n-1].last++
			continue
		}
		runs = append(runs, run{b, b + 1})
	}
	return runs
}

// bitmap is a set of blocks. The zero value is empty. Its memory follows what is in it, not how many blocks a file
// claims to have.
type bitmap struct {
	count int64
	// first has the blocks below 64, more those above, 64 a word.
	first uint64
	more  map[int64]uint64
}

func (m *bitmap) word(w int64) uint64 {
	if w == 0 {
		return m.first
	}
	return m.more[w]
}

func (m *bitmap) put(w int64, word uint64) {
	switch {
	case w == 0:
		m.first = word
	case word == 0:
		delete(m.more, w)
	default:
		if m.more == nil {
			m.more = make(map[int64]uint64)
		}
		m.more[w] = word
	}
}

func (m *bitmap) has(b int64) bool { return m.word(b/64)&(1<<(b%64)) != 0 }

func (m *bitmap) set(b int64) {
	if !m.has(b) {
		m.put(b/64, m.word(b/64)|1<<(b%64))
		m.count++
	}
}

func (m *bitmap) clear(b int64) {
	if m.has(b) {
		m.put(b/64, m.word(b/64)&^(1<<(b%64)))
		m.count--
	}
}

// hasAll reports whether every block of r is in the set.
func (m *bitmap) hasAll(r run) bool { return m.countIn(r) == r.len() }

// countIn is how many blocks of r are in the set. It takes the time of the shorter: the run or the set.
func (m *bitmap) countIn(r run) int64 {
	var n int
	if r.len()/64 <= int64(len(m.more)) {
		for w := r.first / 64; w*64 < r.last; w++ {
			n += bits.OnesCount64(m.word(w) & mask(w, r))
		}
		return int64(n)
	}
	n = bits.OnesCount64(m.first & mask(0, r))
	for w, word := range m.more {
		n += bits.OnesCount64(word & mask(w, r))
	}
	return int64(n)
}

// mask has the bits of the word w that stand for blocks of r.
func mask(w int64, r run) uint64 {
	from, to := max(r.first-w*64, 0), min(r.last-w*64, 64)
	if from >= to {
		return 0
	}
	return ^uint64(0) << from & (^uint64(0) >> (64 - to))
}

// runs are the blocks of the set in order, neighbours together.
func (m *bitmap) runs() []run {
	var runs []run
	for _, w := range append([]int64{0}, slices.Sorted(maps.Keys(m.more))...) {
		for word := m.word(w); word != 0; word &= word - 1 {
			b := w*64 + int64(bits.TrailingZeros64(word))
			if n := len(runs); n > 0 && runs[n-1].last == b {
				runs[n-1].last++
				continue
			}
			runs = append(runs, run{b, b + 1})
		}
	}
	return runs
}
