package embedded

import (
	"math/rand/v2"
	"testing"
)

func TestSequentialReadsOpenTheWindow(t *testing.T) {
	for _, size := range []int64{128 << 10, 1 << 20} {
		var s streams
		var ahead int64
		for off := int64(0); off < 128<<20; off += size {
			ahead = s.read(off, size, largestWindow) - (off + size)
		}
		if ahead != largestWindow {
			t.Errorf("after 128 MiB in reads of %d bytes the window is %d, want %d", size, ahead, largestWindow)
		}
	}
}

func TestFirstReadsFetchNothingAhead(t *testing.T) {
	var s streams
	for _, off := range []int64{0, 4096} {
		if until := s.read(off, 4096, largestWindow); until != off+4096 {
			t.Errorf("read at %d fetches up to %d", off, until)
		}
	}
}

func TestRandomReadsFetchLittleAhead(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s streams
	var ahead, asked int64
	for range 10_000 {
		off := rnd.Int64N(16<<30) / 4096 * 4096
		ahead += s.read(off, 4096, largestWindow) - off - 4096
		asked += BlockSize
	}
	if ahead > asked/20 {
		t.Errorf("random reads fetched %d bytes ahead beside the %d that blocks cost", ahead, asked)
	}
}

func TestReorderedReadsAreOneStream(t *testing.T) {
	var s streams
	var until int64
	const n = 1 << 20
	for base := int64(0); base < 64*n; base += 2 * n {
		s.read(base+n, n, largestWindow)
		until = s.read(base, n, largestWindow)
	}
	if until < 64*n+firstWindow {
		t.Errorf("reads in pairs of the wrong order fetch only up to %d", until)
	}
}

func TestStreamsSideBySide(t *testing.T) {
	var s streams
	for i := range int64(32) {
		for k := range int64(4) {
			base := k << 30
			until := s.read(base+i<<20, 1<<20, largestWindow)
			if i > 16 && until <= base+(i+1)<<20 {
				t.Fatalf("stream %d lost its window at read %d", k, i)
			}
		}
	}
}

func FuzzStreams(f *testing.F) {
	f.Add(int64(0), int64(4096), int64(4096), int64(1<<20))
	f.Add(int64(1<<40), int64(1), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, a, n, b, largest int64) {
		const limit = 1 << 50
		if a < 0 || b < 0 || n < 0 || largest < 0 || a > limit || b > limit || n > limit || largest > limit {
			return
		}
		var s streams
		for i, off := range []int64{a, b, a + n, b + n, a + 2*n, a} {
			until := s.read(off, n, largest)
			if until < off+n {
				t.Fatalf("read %d at %d of %d bytes fetches only up to %d", i, off, n, until)
			}
			if most := max(a+3*n, b+2*n) + largest; until > most {
				t.Fatalf("read %d fetches up to %d, past %d", i, until, most)
			}
		}
	})
}
