package liar

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// small is a world with one file that has had two versions.
func small() (*World, *File) {
	w := NewWorld(1)
	w.AddDir(&Dir{Path: "d"})
	f := w.AddFile(&File{Path: "d/f"}, 20_000)
	w.Change(f, 20_000)
	return w, f
}

// bytesOf are bytes of a version.
func bytesOf(v Version, off, n int64) []byte {
	p := make([]byte, n)
	Fill(v.Content, off, p)
	return p
}

// TestJudge shows the judge what a handle may give and what it may not. Empty rules are right.
func TestJudge(t *testing.T) {
	tests := map[string]struct {
		see  func(h *Handle, old, now Version)
		rule string
	}{
		"the old version": {func(h *Handle, old, _ Version) {
			h.Bytes("read", 0,
				bytesOf(old, 0, 20_000))
			h.End(20_000)
		}, ""},
		"the new version": {func(h *Handle, _, now Version) { h.Bytes("read", 3, bytesOf(now, 3, 100)) }, ""},
		"first old, then new": {func(h *Handle, old, now Version) {
			h.Bytes("read", 0, bytesOf(old, 0, page))
			h.Bytes("read", page, bytesOf(now, page, page))
		}, RuleBytes},
		"both in one read": {func(h *Handle, old, now Version) {
			h.Bytes("read", 0, append(bytesOf(old, 0, page), bytesOf(now, page, page)...))
		}, RuleBytes},
		"zeros":              {func(h *Handle, _, _ Version) { h.Bytes("read", page, make([]byte, page)) }, RuleBytes},
		"bytes of elsewhere": {func(h *Handle, _, now Version) { h.Bytes("read", 0, bytesOf(now, 8, 64)) }, RuleBytes},
		"bytes past the end": {
			func(h *Handle, _, now Version) { h.Bytes("read", 19_990, bytesOf(now, 19_990, 20)) },
			RuleBytes,
		},
		"an early end": {func(h *Handle, _, _ Version) { h.End(100) }, RuleSize},
		"another size": {func(h *Handle, _, _ Version) { h.Size(0) }, RuleSize},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			w, f := small()
			j := NewJudge(w)
			versions := w.Versions(f)
			tc.see(j.Opened(f, make([]byte, mostRead)), versions[0], versions[1])
			wantRule(t, j, tc.rule)
		})
	}
}

// wantRule wants exactly one fault of the rule, none where it is "".
func wantRule(t *testing.T, j *Judge, rule string) {
	t.Helper()
	faults := j.Faults()
	if rule == "" && len(faults) > 0 || rule != "" && (len(faults) != 1 || faults[0].Rule != rule) {
		t.Errorf("the judge says %v, and %q is wanted", faults, rule)
	}
}

// TestJudgePages accepts pages of several versions where nothing tells them apart, and zeros never.
func TestJudgePages(t *testing.T) {
	w, _ := small()
	f := w.AddFile(&File{Path: "d/silent", Sign: Silent, Pages: true}, 20_000)
	old := w.Versions(f)[0]
	now := w.Change(f, 20_000)
	j := NewJudge(w)
	h := j.Opened(f, make([]byte, mostRead))
	h.Bytes("read", 100, append(bytesOf(old, 100, page-100), bytesOf(now, page, page)...))
	wantRule(t, j, "")
	h.Bytes("read", 0, append(bytesOf(old, 0, page), make([]byte, page)...))
	wantRule(t, j, RuleBytes)
}

func TestJudgeErrors(t *testing.T) {
	for _, tc := range []struct {
		honest bool
		lasted time.Duration
		err    error
		rule   string
	}{
		{false, 0, syscall.EIO, ""},
		{false, 0, syscall.ESTALE, ""},
		{true, 0, syscall.EIO, RuleHonest},
		{false, signalPatience - 1, syscall.EINTR, RuleErrno},
		{true, signalPatience, syscall.EINTR, ""},
		{true, signalPatience, syscall.ENOTCONN, RuleErrno},
	} {
		w, _ := small()
		j := NewJudge(w)
		j.Failed(Failure{Call: "open", Path: "d/f", Honest: tc.honest, Lasted: tc.lasted, Err: tc.err})
		wantRule(t, j, tc.rule)
	}
}

func TestJudgeListings(t *testing.T) {
	w, _ := small()
	d, _ := w.Dir("d")
	guest := w.AddGuest(&File{Path: "d/guest", Guest: true}, 1)
	w.AddDir(&Dir{Path: "d/sub"})
	w.Turn(guest)
	for name, tc := range map[string]struct {
		seen []Seen
		rule string
	}{
		"all":            {[]Seen{{"f", "file"}, {"sub", "directory"}, {"guest", ""}}, ""},
		"without guests": {[]Seen{{"sub", ""}, {"f", ""}}, ""},
		"one is lost":    {[]Seen{{"sub", ""}, {"guest", ""}}, RuleEntries},
		"one twice":      {[]Seen{{"f", ""}, {"sub", ""}, {"f", ""}}, RuleEntries},
		"a guest twice":  {[]Seen{{"f", ""}, {"sub", ""}, {"guest", ""}, {"guest", ""}}, RuleEntries},
		"an invention":   {[]Seen{{"f", ""}, {"sub", ""}, {"other", ""}}, RuleEntries},
		"a wrong kind":   {[]Seen{{"f", ""}, {"sub", "file"}}, RuleKind},
	} {
		t.Run(name, func(t *testing.T) {
			j := NewJudge(w)
			j.Listed(d, tc.seen)
			wantRule(t, j, tc.rule)
		})
	}
}

func TestWatch(t *testing.T) {
	w, _ := small()
	j := NewJudge(w)
	watch := newWatch(j, time.Hour)
	end := watch.begin("open", "d/f")
	if watch.look() {
		t.Error("a call that has just begun is late")
	}
	watch.limit = 0
	if !watch.look() {
		t.Error("a call over its limit is not late")
	}
	wantRule(t, j, RuleHang)
	end()
	if watch.look() {
		t.Error("a call that has ended is late")
	}
}

// TestDraws draws the same in any order, and other things for other seeds and words.
func TestDraws(t *testing.T) {
	a := Seed(7).Dice("get", "path", 1).Uint64()
	_ = Seed(7).Dice("get", "path", 2).Uint64()
	if again := Seed(7).Dice("get", "path", 1).Uint64(); a != again {
		t.Error("the same words draw another number")
	}
	if Seed(7).Dice("get", "path", 2).Uint64() == a || Seed(8).Dice("get", "path", 1).Uint64() == a {
		t.Error("other words draw the same number")
	}
	kinds, seen := map[Kind]bool{}, map[string]bool{}
	for seed := range Seed(400) {
		p := Draw(seed)
		kinds[p.Kind] = true
		for _, theme := range p.Themes {
			seen[string(p.Kind)+" "+theme] = true
		}
		if p.String() != Draw(seed).String() {
			t.Fatalf("seed %d makes two plans", seed)
		}
	}
	want := 0
	for _, kind := range Kinds() {
		want += len(themesOf(kind))
	}
	if len(kinds) != len(Kinds()) || len(seen) != want {
		t.Errorf("400 seeds draw %d kinds of %d and %d themes of %d", len(kinds), len(Kinds()), len(seen), want)
	}
}

// TestNames: what is odd about the names is so.
func TestNames(t *testing.T) {
	if shown(strings.Repeat("x", 1025)) || shown("a/b") || shown("a\x00") || !shown("\xff") {
		t.Error("shown is wrong about a name")
	}
}
