package rpc

import "testing"

// TestBuffers have the length that was asked for, whatever was put back before.
func TestBuffers(t *testing.T) {
	var b buffers
	odd := make([]byte, 5000)
	b.Put(&odd)
	b.Put(new([]byte))
	for range 3 {
		for _, length := range []int{0, 1, 1023, 1024, 1025, 16 << 10, 16<<10 + 9, 1 << 20, 1<<20 + 1, 5 << 20} {
			got := b.Get(length)
			if len(*got) != length {
				t.Fatalf("a buffer for %d bytes has %d", length, len(*got))
			}
			for i := range *got {
				(*got)[i] = byte(length)
			}
			b.Put(got)
		}
	}
	held, other := b.Get(2000), b.Get(2000)
	if &(*held)[0] == &(*other)[0] {
		t.Error("two who ask have the same buffer")
	}
}
