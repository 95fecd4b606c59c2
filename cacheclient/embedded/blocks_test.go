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
	m := newBitmap(200)
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
}
