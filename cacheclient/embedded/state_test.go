package embedded

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

func testHeader() header {
	return headerOf(cacheclient.Info{Path: "a/b", Size: 5*BlockSize + 1, ModTime: time.Unix(1, 2).UTC(), Version: `"e"`})
}

func writeState(tb testing.TB, name string, blocks map[int64]uint32) {
	tb.Helper()
	s, err := createState(name, testHeader())
	if err != nil {
		tb.Fatal(err)
	}
	for b, sum := range blocks {
		if err := s.set(b, sum); err != nil {
			tb.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		tb.Fatal(err)
	}
}

func readState(tb testing.TB, name string) (header, map[int64]uint32, error) {
	tb.Helper()
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	_, h, slots, err := openState(f)
	return h, slots, err
}

func TestStateRoundTrip(t *testing.T) {
	name := filepath.Join(t.TempDir(), "s")
	writeState(t, name, map[int64]uint32{0: 1, 3: 0, 5: 42})
	h, slots, err := readState(t, name)
	if err != nil || h.info() != testHeader().info() {
		t.Fatalf("header %+v, %v", h, err)
	}
	if len(slots) != 3 || slots[0] != 1 || slots[3] != 0 || slots[5] != 42 {
		t.Errorf("slots %v", slots)
	}
}

// TestStateDamage flips each byte in turn: the state is refused, or vouches for no more than it did.
func TestStateDamage(t *testing.T) {
	name := filepath.Join(t.TempDir(), "s")
	want := map[int64]uint32{0: 11, 1: 12, 5: 13}
	writeState(t, name, want)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range good {
		if i > 512 && i < statePage {
			continue
		}
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x55
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		h, slots, err := readState(t, name)
		if err != nil {
			refused++
			continue
		}
		if h.info() != testHeader().info() {
			t.Fatalf("byte %d: another header is believed: %+v", i, h)
		}
		checkVouched(t, slots, want)
	}
	if refused < stateFixed {
		t.Errorf("only %d damaged states were refused", refused)
	}
}

func checkVouched(t *testing.T, got, want map[int64]uint32) {
	t.Helper()
	for b, sum := range got {
		if w, ok := want[b]; !ok || w != sum {
			t.Fatalf("block %d is vouched for with %x", b, sum)
		}
	}
}

// FuzzState feeds the reader of states what a broken tier may hold. What it accepts must be
// consistent in itself; it must not panic, and not read without bounds.
func FuzzState(f *testing.F) {
	name := filepath.Join(f.TempDir(), "seed")
	writeState(f, name, map[int64]uint32{0: 1, 2: 3})
	seed, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:20])
	f.Add([]byte(stateMagic + "\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		h, slots, err := readState(t, name)
		if err != nil {
			return
		}
		for b := range slots {
			if b < 0 || b >= blocksIn(h.Size) {
				t.Fatalf("block %d of a file of %d bytes", b, h.Size)
			}
		}
	})
}
