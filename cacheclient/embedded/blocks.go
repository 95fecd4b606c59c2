package embedded

import "math/bits"

// BlockSize is the unit of caching in bytes: what one random read costs the source at the most,
// and what one slot of the state vouches for.
const BlockSize = 1 << 20

// maxRun is the length of one request to the source in blocks: long enough that the time to the
// first byte is small beside it, short enough that several run side by side.
const maxRun = 8

func blocksIn(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

// run is the blocks [first, last).
type run struct{ first, last int64 }

func (r run) len() int64 { return r.last - r.first }

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
func (r run) charge(size int64) int64 {
	return (r.bytes(size) + statePage - 1) / statePage * statePage
}

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

// bitmap is a set of blocks.
type bitmap struct {
	words []uint64
	count int64
}

func newBitmap(n int64) bitmap { return bitmap{words: make([]uint64, (n+63)/64)} }

func (m *bitmap) has(b int64) bool { return m.words[b/64]&(1<<(b%64)) != 0 }

func (m *bitmap) set(b int64) {
	if !m.has(b) {
		m.words[b/64] |= 1 << (b % 64)
		m.count++
	}
}

func (m *bitmap) clear(b int64) {
	if m.has(b) {
		m.words[b/64] &^= 1 << (b % 64)
		m.count--
	}
}

// hasAll tells whether every block of r is in the set.
func (m *bitmap) hasAll(r run) bool {
	for b := r.first; b < r.last; {
		if b%64 == 0 && r.last-b >= 64 {
			if bits.OnesCount64(m.words[b/64]) != 64 {
				return false
			}
			b += 64
			continue
		}
		if !m.has(b) {
			return false
		}
		b++
	}
	return true
}
