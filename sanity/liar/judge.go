package liar

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// page is the least piece of a file that is judged by itself.
const page = 4096

// The rules, as faults name them.
const (
	RuleBytes   = "wrong bytes"
	RuleSize    = "wrong size"
	RuleHonest  = "an honest file failed"
	RuleEntries = "lost or double entries"
	RuleKind    = "wrong kind of entry"
	RuleHang    = "over its deadline"
	RuleErrno   = "an errno that no caller expects"
	RuleDeath   = "the process died"
	RuleMemory  = "memory out of bounds"
	RuleTier    = "tier out of bounds"
	RuleTruce   = "not right in the truce"
	RuleCold    = "the cache was lost"
	RuleMount   = "mounting or unmounting failed"
)

// Fault is something that was not right.
type Fault struct {
	Rule, Path, What string
}

func (f Fault) String() string {
	return fmt.Sprintf("%s: %s: %s", f.Rule, quoted(f.Path), f.What)
}

// quoted is a path in a bounded length.
func quoted(path string) string {
	if len(path) > 60 {
		path = path[:57] + "..."
	}
	return fmt.Sprintf("%q", path)
}

// mostFaults bounds the faults of one rule in one run.
const mostFaults = 6

// Judge compares what readers saw with the world. All methods may be called from many goroutines.
type Judge struct {
	world *World
	// Calls counts the calls that were judged, Refused those of them that failed as they may.
	Calls, Refused atomic.Int64

	// mu guards the rest.
	mu     sync.Mutex
	faults []Fault
	// seen are rules and paths that are told already, count the faults of each rule.
	seen  map[string]bool
	count map[string]int
	// ended says that the mount is being taken away.
	ended bool
}

// NewJudge judges by that world.
func NewJudge(w *World) *Judge {
	return &Judge{world: w, seen: map[string]bool{}, count: map[string]int{}}
}

// Fault notes a fault, once for a rule and a path.
func (j *Judge) Fault(rule, path, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended || j.seen[rule+path] || j.count[rule] >= mostFaults {
		return
	}
	j.seen[rule+path] = true
	j.count[rule]++
	j.faults = append(j.faults, Fault{Rule: rule, Path: path, What: fmt.Sprintf(format, args...)})
}

// end has nothing that comes from now on be a fault.
func (j *Judge) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = true
}

// over reports whether the judge has ended.
func (j *Judge) over() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended
}

// Faults are all faults so far.
func (j *Judge) Faults() []Fault {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.faults)
}

// unexpected are errors that no lie of a source excuses.
var unexpected = []error{
	syscall.EINTR, syscall.ENOTCONN, syscall.ECONNABORTED, syscall.ENOSYS, syscall.EBADF,
	syscall.EINVAL, syscall.ENOMEM,
}

// Failure is a call that failed.
type Failure struct {
	Call, Path string
	// Honest says that no lie is told of the path.
	Honest bool
	// Lasted is how long the call took.
	Lasted time.Duration
	Err    error
}

// signalPatience is how long a call waits on after a signal that means nothing. D-171 says why.
const signalPatience = 5 * time.Second

// Failed judges the error of a call.
func (j *Judge) Failed(f Failure) {
	j.Calls.Add(1)
	if errors.Is(f.Err, syscall.EINTR) && f.Lasted >= signalPatience {
		j.Refused.Add(1)
		return
	}
	for _, e := range unexpected {
		if errors.Is(f.Err, e) {
			j.Fault(RuleErrno, f.Path, "%s, after %v: %v", f.Call, f.Lasted, f.Err)
			return
		}
	}
	if f.Honest {
		j.Fault(RuleHonest, f.Path, "%s, after %v: %v", f.Call, f.Lasted, f.Err)
		return
	}
	j.Refused.Add(1)
}

// Handle is what has been seen through one open file.
type Handle struct {
	judge *Judge
	file  *File
	// dead are the numbers of the versions that what was seen is not of.
	dead map[int]bool
	// room is as long as the longest piece that is judged.
	room []byte
}

// Opened begins to judge an open file. The room is scratch, as long as the longest piece.
func (j *Judge) Opened(f *File, room []byte) *Handle {
	j.Calls.Add(1)
	return &Handle{judge: j, file: f, dead: map[int]bool{}, room: room}
}

// alive are the versions that all which was seen may be of.
func (h *Handle) alive() []Version {
	return slices.DeleteFunc(h.judge.world.Versions(h.file), func(v Version) bool { return h.dead[v.Number] })
}

// narrow keeps the versions for which fits, and reports whether one is left.
func (h *Handle) narrow(fits func(Version) bool) bool {
	left := false
	for _, v := range h.alive() {
		if fits(v) {
			left = true
		} else {
			h.dead[v.Number] = true
		}
	}
	return left
}

// Bytes judges what was read at an offset.
func (h *Handle) Bytes(how string, off int64, p []byte) {
	h.judge.Calls.Add(1)
	if h.file.Pages {
		h.pages(how, off, p)
		return
	}
	before := h.alive()
	if h.narrow(func(v Version) bool { return off+int64(len(p)) <= v.Size && holds(v.Content, off, p, h.room) }) {
		return
	}
	h.judge.Fault(RuleBytes, h.file.Path, "%s of %d bytes at %d: %s; before it was of %s", how, len(p), off,
		h.describe(off, p), numbers(before))
	h.dead = map[int]bool{}
}

// pages judges each page alone.
func (h *Handle) pages(how string, off int64, p []byte) {
	for at := 0; at < len(p); {
		n := min(len(p)-at, page-int((off+int64(at))%page))
		if h.of(off+int64(at), p[at:at+n]) == 0 {
			h.judge.Fault(RuleBytes, h.file.Path, "%s of %d bytes at %d: %s", how, len(p), off, h.describe(off, p))
			return
		}
		at += n
	}
}

// of is the number of the version that a piece is of, 0 for none.
func (h *Handle) of(off int64, p []byte) int {
	for _, v := range h.judge.world.Versions(h.file) {
		if off+int64(len(p)) <= v.Size && holds(v.Content, off, p, h.room) {
			return v.Number
		}
	}
	return 0
}

// describe tells of which version each page is.
func (h *Handle) describe(off int64, p []byte) string {
	var runs []string
	last, from := "", off
	flush := func(to int64) {
		if last != "" {
			runs = append(runs, fmt.Sprintf("%d-%d %s", from, to, last))
		}
	}
	for at := 0; at < len(p); {
		here := off + int64(at)
		n := min(len(p)-at, page-int(here%page))
		what := h.name(here, p[at:at+n])
		if what != last {
			flush(here)
			last, from = what, here
		}
		at += n
	}
	flush(off + int64(len(p)))
	if len(runs) > 6 {
		runs = append(runs[:6], fmt.Sprintf("and %d more", len(runs)-6))
	}
	return strings.Join(runs, ", ")
}

// name tells what a page is.
func (h *Handle) name(off int64, p []byte) string {
	if n := h.of(off, p); n > 0 {
		return fmt.Sprintf("of version %d", n)
	}
	for _, v := range h.judge.world.Versions(h.file) {
		if holds(v.Content, off, p, h.room) {
			return fmt.Sprintf("of version %d past its end", v.Number)
		}
	}
	if len(bytes.Trim(p, "\x00")) == 0 {
		return "zeros"
	}
	return "of no version"
}

// Size judges the size that the open file tells.
func (h *Handle) Size(n int64) {
	h.judge.Calls.Add(1)
	h.length("fstat says", n)
}

// End judges the place where the file ended for its reader.
func (h *Handle) End(at int64) {
	h.judge.Calls.Add(1)
	h.length("it ends at", at)
}

func (h *Handle) length(how string, n int64) {
	if h.file.InPlace {
		return
	}
	before := h.alive()
	if h.narrow(func(v Version) bool { return v.Size == n }) {
		return
	}
	sizes := make([]string, 0, len(before))
	for _, v := range before {
		sizes = append(sizes, fmt.Sprintf("%d (version %d)", v.Size, v.Number))
	}
	h.judge.Fault(RuleSize, h.file.Path, "%s %d bytes, not %s", how, n, strings.Join(sizes, " or "))
	h.dead = map[int]bool{}
}

// numbers names versions.
func numbers(versions []Version) string {
	var all []string
	for _, v := range versions {
		all = append(all, strconv.Itoa(v.Number))
	}
	return "version " + strings.Join(all, " or ")
}

// Seen is an entry that a reader of a directory got.
type Seen struct {
	Name string
	// Kind is "directory", "file" or "" where it was not told.
	Kind string
}

// Listed judges a listing that was read to its end.
func (j *Judge) Listed(d *Dir, seen []Seen) {
	j.Calls.Add(1)
	times := map[string]int{}
	for _, e := range seen {
		times[e.Name]++
		j.entry(d, e)
	}
	var lost, twice []string
	for _, name := range d.Steady {
		if times[name] == 0 && shown(name) {
			lost = append(lost, name)
		}
	}
	for name, n := range times {
		if n > 1 {
			twice = append(twice, name)
		}
	}
	if len(lost) > 0 {
		j.Fault(RuleEntries, d.Path, "%d of %d names that are there throughout are missing: %s", len(lost),
			len(d.Steady), few(lost))
	}
	if len(twice) > 0 {
		j.Fault(RuleEntries, d.Path, "%d names come more than once: %s", len(twice), few(twice))
	}
}

// entry judges one entry by itself.
func (j *Judge) entry(d *Dir, e Seen) {
	if !j.world.Ever(d, e.Name) {
		j.Fault(RuleEntries, d.Path, "the name %s was never there", quoted(e.Name))
		return
	}
	_, isDir := j.world.Dir(join(d.Path, e.Name))
	if isDir = isDir || d.Loop && e.Name == loopName; isDir && e.Kind == "file" || !isDir && e.Kind == "directory" {
		j.Fault(RuleKind, join(d.Path, e.Name), "readdir says that it is a %s", e.Kind)
	}
}

// longestName is FUSE_NAME_MAX: no mount can show a longer one.
const longestName = 1024

// shown reports whether a mount can show the name.
func shown(name string) bool { return len(name) <= longestName && !strings.ContainsAny(name, "/\x00") }

// few names some of them.
func few(names []string) string {
	slices.Sort(names)
	var out []string
	for _, name := range names[:min(len(names), 4)] {
		out = append(out, quoted(name))
	}
	if len(names) > 4 {
		out = append(out, "...")
	}
	return strings.Join(out, " ")
}
