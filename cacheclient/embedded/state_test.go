package embedded

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

func testHeader() header {
	return headerOf(cacheclient.Info{
		Path: "a/b", Size: 5*BlockSize + 1, ModTime: time.Unix(1, 2).UTC(),
		Version: `"e"`,
	})
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

// FuzzStateRoundTrip writes the state of any file and reads it back: names and versions are bytes, times any.
func FuzzStateRoundTrip(f *testing.F) {
	for _, path := range []string{
		"a/b", "caf\xe9.bin", "\xff\xfe", "a\x00b", "\u2028\ufffd<>&\"\\",
		"d/" + strings.Repeat("x", 1024), strings.Repeat("d/", 3000) + "f",
	} {
		for _, sec := range []int64{0, -1, 1 << 31, 253402300800, -62135596800, 1<<63 - 1, -1 << 63} {
			f.Add(path, "\xde\xad\"", int64(5), sec, int64(999_999_999), uint32(0), true)
		}
	}
	f.Add("x", "", int64(1)<<50, int64(1), int64(0), ^uint32(0), false)
	f.Fuzz(func(t *testing.T, path, version string, size, sec, nsec int64, mode uint32, known bool) {
		info := cacheclient.Info{
			Path: path, Version: version, Size: size, ModTime: time.Unix(sec, nsec).UTC(), ModeKnown: known,
		}
		if known {
			info.Mode = os.FileMode(mode)
		}
		info = cacheclient.Identify(info)
		if info.ID == cacheclient.RootID || border.Size(size) != nil || size == 0 {
			t.Skip("no file that is cached")
		}
		name := filepath.Join(t.TempDir(), "s")
		s, err := createState(name, headerOf(info))
		if errors.Is(err, errNotKept) && len(path)+len(version) > maxHeader/2 {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		last := blocksIn(size) - 1
		at := time.Unix(1_700_000_000, 5)
		if err := errors.Join(s.set(last, 7), s.confirm(at), s.close()); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		_, h, slots, err := openState(file)
		if err != nil || h.info() != info || len(slots) != 1 || slots[last] != 7 {
			t.Fatalf("read back %+v with %d blocks, %v; want %+v", h.info(), len(slots), err, info)
		}
		if _, _, confirmed, _ := readHeader(file); !confirmed.Equal(at) {
			t.Fatalf("confirmed %v, want %v", confirmed, at)
		}
	})
}

// TestModesOutliveTheirProcess: permissions of 0 are no lack of them, in states and listings.
func TestModesOutliveTheirProcess(t *testing.T) {
	for _, want := range []cacheclient.Info{
		{Path: "f", Size: 1}, {Path: "f", Size: 1, ModeKnown: true}, {Path: "f", Size: 1, Mode: 0o640, ModeKnown: true},
	} {
		got := headerOf(want).info()
		if got.Mode != want.Mode || got.ModeKnown != want.ModeKnown {
			t.Errorf("in a state %+v came back as %+v", want, got)
		}
		got, err := decodeEntry(bufio.NewReader(bytes.NewReader(encodeEntry(nil, want))), "", 1<<20)
		if err != nil || got != want {
			t.Errorf("in a listing %+v came back as %+v, %v", want, got, err)
		}
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
