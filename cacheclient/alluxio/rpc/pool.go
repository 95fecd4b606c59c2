package rpc

import (
	"math/bits"
	"sync"
)

const (
	// leastPooled and mostPooled are the sizes that buffers keeps, as powers of two of bytes: frames have 16 KiB at the
	// most, and messages that are put together are rare.
	leastPooled, mostPooled = 10, 20
)

// buffers is the memory that frames are received into. gRPC's own pool clears each buffer before it is filled, which is
// a tenth of what a block's bytes cost this process; here the bytes of a frame overwrite what was there, and nobody
// sees more of a buffer than was written.
type buffers struct {
	// classes are buffers of the sizes that are kept, the smallest first.
	classes [mostPooled - leastPooled + 1]sync.Pool
}

// received is the memory of all connections.
var received buffers

// Get returns a buffer of this length, with whatever it held before. It implements mem.BufferPool.
func (b *buffers) Get(length int) *[]byte {
	class := max(bits.Len(uint(max(length, 1)-1)), leastPooled)
	if class > mostPooled {
		fresh := make([]byte, length)
		return &fresh
	}
	if kept, ok := b.classes[class-leastPooled].Get().(*[]byte); ok {
		*kept = (*kept)[:length]
		return kept
	}
	fresh := make([]byte, length, 1<<class)
	return &fresh
}

// Put takes a buffer back that Get returned. It implements mem.BufferPool.
func (b *buffers) Put(buffer *[]byte) {
	size := uint(cap(*buffer))
	if size&(size-1) != 0 || size < 1<<leastPooled || size > 1<<mostPooled {
		return
	}
	b.classes[bits.Len(size)-1-leastPooled].Put(buffer)
}
