package ufs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// told is a store that tells what a test has it tell.
type told struct {
	Store
	infos []cacheclient.Info
	stat  cacheclient.Info
}

func (s *told) Stat(context.Context, string) (cacheclient.Info, error) { return s.stat, nil }

func (s *told) List(_ context.Context, _ string, fn func(cacheclient.Info) error) error {
	for _, info := range s.infos {
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func guardedOf(s Store) *guarded {
	return &guarded{Store: s, notes: &notes{log: slog.New(slog.DiscardHandler), source: "here"}}
}

// TestBorderStat tells a file of each size.
func TestBorderStat(t *testing.T) {
	for size, want := range map[int64]error{
		0: nil, 1: nil, border.MostBytes: nil, border.MostBytes + 1: cacheclient.ErrTooLarge,
		1 << 62: cacheclient.ErrTooLarge, math.MaxInt64: cacheclient.ErrTooLarge,
		-1: cacheclient.ErrTooLarge, math.MinInt64: cacheclient.ErrTooLarge,
	} {
		long := strings.Repeat("v", 1<<20)
		g := guardedOf(&told{stat: cacheclient.Info{Path: "f", Size: size, Version: long}})
		info, err := g.Stat(testContext(t), "f")
		if !errors.Is(err, want) || err == nil && (info.Size != size || len(info.Version) > border.MostVersionBytes) {
			t.Errorf("%d: %+v, %v", size, info, err)
		}
	}
	g := guardedOf(&told{})
	for _, path := range []string{"a//b", "..", "a\x00", strings.Repeat("x", border.MostNameBytes+1)} {
		if _, err := g.Stat(testContext(t), path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.20q: %v", path, err)
		}
	}
}

// TestBorderList tells a directory of what no directory can have, beside what any can.
func TestBorderList(t *testing.T) {
	longest := strings.Repeat("n", border.MostNameBytes)
	var infos []cacheclient.Info
	for _, name := range []string{
		"a", "caf\xe9", "", ".", "..", "x/y", "nul\x00", longest, longest + "n", "new\nline", "back\\slash", "-rf",
	} {
		infos = append(infos, cacheclient.Info{Path: "d/" + name, Size: 1})
	}
	infos = append(infos, cacheclient.Info{Path: "elsewhere", Size: 1}, cacheclient.Info{Path: "d/huge", Size: 1 << 62},
		cacheclient.Info{Path: "d/negative", Size: -7},
		cacheclient.Info{Path: "d/far", Size: 1, ModTime: time.Date(40000, 1, 1, 0, 0, 0, 0, time.UTC)})
	g := guardedOf(&told{infos: infos})
	names, got := listNames(t, g, "d")
	want := []string{"a", "caf\xe9", longest, "new\nline", "back\\slash", "-rf", "huge", "negative", "far"}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%q", difference(names, want))
	}
	for _, info := range got {
		if size := info.Size; (info.Name() == "huge" ||
			info.Name() == "negative") != (size == cacheclient.UnknownSize) {
			t.Errorf("%+v", info)
		}
		if info.Name() == "far" && info.ModTime.Year() != 40000 {
			t.Errorf("%+v", info)
		}
	}
	if told := g.Notes(); len(told) != 2 || !strings.Contains(told[0], "names that no file system can hold") ||
		!strings.Contains(told[1], "7 entries") {
		t.Errorf("%q", told)
	}
}

// TestBorderEndless tells a directory without an end.
func TestBorderEndless(t *testing.T) {
	l := listed{dir: "d"}
	for range 3 {
		if err := l.count(cacheclient.Info{Path: "d/four"}); err != nil {
			t.Fatal(err)
		}
	}
	if l.entries != 3 || l.bytes != 3*int64(len("/four")) {
		t.Errorf("%+v", l)
	}
	l.entries = border.MostEntries
	err := l.count(cacheclient.Info{Path: "d/one"})
	if retry, _ := Retryable(err); retry || !errors.Is(err, cacheclient.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

// TestNotesOnce tells a thing twice.
func TestNotesOnce(t *testing.T) {
	var log strings.Builder
	n := &notes{log: slog.New(slog.NewTextHandler(&log, nil)), source: "http://h/"}
	n.tell("k", "one")
	n.tell("k", "another")
	n.tell("l", "two")
	if got := n.all(); !slices.Equal(got, []string{"one", "two"}) || strings.Count(log.String(), "\n") != 2 {
		t.Errorf("%q, %s", got, log.String())
	}
}
