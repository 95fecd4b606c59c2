package embedded

import (
	"slices"
	"testing"
)

func TestCover(t *testing.T) {
	const size = 3*BlockSize + 5
	for _, tt := range []struct {
		from, to int64
		want     run
	}{
		{0, 1, run{0, 1}},
		{0, BlockSize, run{0, 1}},
		{BlockSize - 1, BlockSize + 1, run{0, 2}},
		{3 * BlockSize, size, run{3, 4}},
		{3 * BlockSize, 1 << 40, run{3, 4}},
		{size, size + 1, run{}},
	} {
		if got := cover(tt.from, tt.to, size); got != tt.want {
			t.Errorf("cover(%d, %d) = %v, want %v", tt.from, tt.to, got, tt.want)
		}
	}
	if got := (run{2, 4}).bytes(size); got != BlockSize+5 {
		t.Errorf("the last two blocks have %d bytes", got)
	}
	if got := (run{3, 4}).charge(size); got != 4096 {
		t.Errorf("5 bytes are charged as %d", got)
	}
}

func TestMissing(t *testing.T) {
	busy := map[int64]bool{2: true, 5: true}
	got := missing(run{0, 10}, 2, func(b int64) bool { return busy[b] })
	want := []run{{0, 2}, {3, 5}, {6, 8}, {8, 10}}
	if !slices.Equal(got, want) {
		t.Errorf("missing = %v, want %v", got, want)
	}
}

func TestBitmap(t *testing.T) {
	var m bitmap
	for b := range int64(200) {
		m.set(b)
		m.set(b)
	}
	if m.count != 200 || !m.hasAll(run{0, 200}) {
		t.Errorf("a full set counts %d", m.count)
	}
	m.clear(130)
	m.clear(130)
	if m.count != 199 || m.has(130) || m.hasAll(run{64, 192}) || !m.hasAll(run{0, 130}) || !m.hasAll(run{131, 200}) {
		t.Error("clearing one block changed others or did not show")
	}
	if got, want := m.runs(), []run{{0, 130}, {131, 200}}; !slices.Equal(got, want) {
		t.Errorf("runs %v, want %v", got, want)
	}
}

// TestBitmapFollowsUse has a few blocks of files of any size, and counts them in runs of any length.
func TestBitmapFollowsUse(t *testing.T) {
	var m bitmap
	blocks := []int64{0, 63, 64, 1<<30 - 1, 1 << 30, 1<<43 - 1}
	for _, b := range blocks {
		m.set(b)
	}
	for _, tt := range []struct {
		r    run
		want int64
	}{
		{run{0, 1 << 43}, 6},
		{run{0, 64}, 2},
		{run{1, 63}, 0},
		{run{63, 65}, 2},
		{run{64, 1 << 30}, 2},
		{run{1 << 30, 1<<30 + 1}, 1},
		{run{5, 5}, 0},
		{run{1<<43 - 1, 1 << 43}, 1},
	} {
		if got := m.countIn(tt.r); got != tt.want {
			t.Errorf("%d blocks in %v, want %d", got, tt.r, tt.want)
		}
	}
	for _, b := range blocks {
		m.clear(b)
	}
	if m.count != 0 || len(m.more) != 0 || m.first != 0 || m.runs() != nil {
		t.Errorf("an empty set has %d blocks and %d words", m.count, len(m.more))
	}
}

// TestSizesAtTheBorders has none of the arithmetic overflow.
func TestSizesAtTheBorders(t *testing.T) {
	for size, want := range map[int64]int64{
		-1 << 63: 0, -1: 0, 0: 0, 1: 1, BlockSize: 1, BlockSize + 1: 2, 1 << 50: 1 << 30, 1<<63 - 1: 1 << 43,
	} {
		if got := blocksIn(size); got != want {
			t.Errorf("%d bytes have %d blocks, want %d", size, got, want)
		}
	}
}
