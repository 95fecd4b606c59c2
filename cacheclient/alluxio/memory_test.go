package alluxio

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

// blockFileFor is an open block of this content, with a reference for the caller.
func blockFileFor(t *testing.T, id int64, content string) *blockFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), strconv.FormatInt(id, 10))
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := openBlockFile(path, id, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOnlyABlocksOwnFileIsOpened(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("7", "12345")
	if err := os.Symlink(good, filepath.Join(dir, "8")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "9"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		path   string
		id, n  int64
		damage bool
	}{
		"another block's":   {good, 8, 5, false},
		"too short":         {good, 7, 6, true},
		"too long":          {good, 7, 4, true},
		"a relative path":   {"7", 7, 5, false},
		"another file":      {write("passwd", "12345"), 7, 5, false},
		"a NUL":             {dir + "\x00/7", 7, 5, false},
		"a link":            {filepath.Join(dir, "8"), 8, 5, false},
		"a directory":       {filepath.Join(dir, "9"), 9, 5, true},
		"one that is gone":  {filepath.Join(dir, "10"), 10, 5, false},
		"a name that looks": {write("07", "12345"), 7, 5, false},
	} {
		b, err := openBlockFile(tc.path, tc.id, tc.n)
		if err == nil {
			b.release()
			t.Errorf("%s is opened", name)
		} else if errors.Is(err, errDamaged) != tc.damage {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, path := range map[string]string{
		"no temporary block": good, "another's": write("ab-6", ""),
		"relative": "x-7", "not empty": write("ab-7", "x"),
	} {
		if b, err := openTemporary(path, 7, 5); err == nil {
			b.release()
			t.Errorf("%s is written to", name)
		}
	}
	if text, _ := os.ReadFile(good); string(text) != "12345" {
		t.Errorf("a file was changed to %q", text)
	}
}

func TestALoanOutlivesTheBlock(t *testing.T) {
	h, err := newHeld()
	if err != nil {
		t.Fatal(err)
	}
	b := blockFileFor(t, 7, "block seven")
	h.put(b)
	b.release()
	loan := h.get(7)
	if loan == nil || h.count() != 1 {
		t.Fatalf("%v of %d", loan, h.count())
	}
	if err := os.Remove(loan.file.Name()); err != nil {
		t.Fatal(err)
	}
	h.sweep(time.Now())
	if h.count() != 0 || h.get(7) != nil {
		t.Errorf("a block that the worker has dropped is still held")
	}
	if got := string(loan.bytes(6, 5)); got != "seven" {
		t.Errorf("the loan reads %q", got)
	}
	file := loan.file
	loan.release()
	if _, err := file.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after the last reference the file is open: %v", err)
	}
}

func TestHeldBlocksAreBoundedAndEnd(t *testing.T) {
	before := heldByAll.Load()
	h, err := newHeld()
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(maxHeld + 10) {
		b := blockFileFor(t, id, "x")
		h.put(b)
		h.put(b)
		b.release()
	}
	if h.count() != maxHeld || h.get(0) != nil {
		t.Errorf("%d are held, the oldest too: %v", h.count(), h.get(0) != nil)
	}
	b := h.get(maxHeld)
	b.used.Store(time.Now().Add(heldIdle).UnixNano())
	h.sweep(time.Now().Add(heldIdle + time.Second))
	if h.count() != 1 {
		t.Errorf("%d are held after all but one were idle", h.count())
	}
	h.drop(maxHeld)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.run(ctx)
	// Somebody who was late.
	h.put(b)
	if h.count() != 0 || h.get(maxHeld) != nil {
		t.Errorf("%d are held after the end", h.count())
	}
	b.release()
	if b.refs.Load() != 0 {
		t.Errorf("%d references are left", b.refs.Load())
	}
	if n := heldByAll.Load(); n != before {
		t.Errorf("%d are counted for the process and were %d", n, before)
	}
}

func TestRecently(t *testing.T) {
	var r recently
	if r.was(1) || !r.first(1, time.Hour) || r.first(1, time.Hour) || !r.was(1) || r.was(2) {
		t.Error("what was done is not remembered")
	}
	if !r.first(2, 0) || r.was(2) || !r.first(2, 0) {
		t.Error("what may be done again at once is remembered")
	}
	for id := range int64(3 * maxRecent) {
		r.first(id, time.Hour)
	}
	if len(r.until) > maxRecent {
		t.Errorf("%d things are remembered", len(r.until))
	}
}

func TestPlaces(t *testing.T) {
	p, err := newPlaces()
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(maxPlaces + 5) {
		p.put(id, place{})
	}
	if _, ok := p.get(0); ok || p.lru.Len() != maxPlaces {
		t.Errorf("%d places are known, the oldest too: %v", p.lru.Len(), ok)
	}
	if !p.mayAsk() {
		t.Error("the masters are not asked before they failed")
	}
	p.told(cacheclient.ErrUnavailable)
	if p.mayAsk() {
		t.Error("the masters are asked at once after they failed")
	}
	p.told(nil)
	p.without(12345678, nil)
}
