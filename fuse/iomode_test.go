package fuse

import "testing"

func TestIOMode(t *testing.T) {
	s := ioState{}.open(0)
	if s.mode != ioCopy || s.opens != 1 {
		t.Fatalf("a first open without a local file: %+v", s)
	}
	s = s.open(0)
	if s, done := s.release(); s.mode != ioCopy || done != 0 {
		t.Fatalf("the mode changed while open: %+v", s)
	}
	s, _ = s.release()
	s, done := s.release()
	if s != (ioState{}) || done != 0 {
		t.Fatalf("after the last release: %+v, backing %d", s, done)
	}
	s = s.open(7)
	if s.mode != ioPassthrough || s.backing != 7 {
		t.Fatalf("a first open with a local file: %+v", s)
	}
	s, done = s.open(0).release()
	if s.backing != 7 || done != 0 {
		t.Fatalf("the backing id went while open: %+v, %d", s, done)
	}
	if s, done = s.release(); s != (ioState{}) || done != 7 {
		t.Fatalf("after the last release: %+v, backing %d", s, done)
	}
	if s, done = s.release(); s != (ioState{}) || done != 0 {
		t.Fatalf("a release too many: %+v, %d", s, done)
	}
}

// FuzzIOMode replays opens and releases against the kernel's rule: handles that are open
// at the same time have one mode and one backing id, and each id is given back once.
func FuzzIOMode(f *testing.F) {
	f.Add([]byte{0, 1, 2, 2, 1, 0, 2, 2, 2})
	f.Add([]byte{1, 1, 1, 2, 2, 2, 0, 2})
	f.Fuzz(func(t *testing.T, events []byte) {
		var s ioState
		var handles []ioState
		next, held := int32(1), map[int32]bool{}
		for _, e := range events {
			if e%3 == 2 {
				var done int32
				s, done = s.release()
				if len(handles) > 0 {
					handles = handles[1:]
				}
				if done != 0 {
					if !held[done] || len(handles) != 0 {
						t.Fatalf("id %d given back, %d handles open", done, len(handles))
					}
					delete(held, done)
				}
			} else {
				backing := int32(0)
				if s.opens == 0 && e%3 == 1 {
					backing = next
					held[next] = true
					next++
				}
				s = s.open(backing)
				handles = append(handles, s)
			}
			if int(s.opens) != len(handles) {
				t.Fatalf("%d opens, %d handles", s.opens, len(handles))
			}
			for _, h := range handles {
				if h.mode != s.mode || h.backing != s.backing {
					t.Fatalf("handle %+v beside %+v", h, s)
				}
			}
			if len(handles) == 0 && (s != ioState{} || len(held) != 0) {
				t.Fatalf("closed: %+v, ids held %v", s, held)
			}
		}
	})
}
