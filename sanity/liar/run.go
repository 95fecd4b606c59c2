package liar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/session"
)

// slowest bounds by how much a busy machine stretches limits of time.
const slowest = 3

// Report is what the run of a seed found.
type Report struct {
	Plan   Plan
	Faults []Fault
	// Calls counts what was judged, Refused those of it that failed as they may.
	Calls, Refused int64
	Took           time.Duration
	// Told are, for the path of each fault, the last lies about it.
	Told map[string][]string
	// Log is the mount's own log, where there are faults.
	Log []byte
}

// run is a seed at work.
type run struct {
	plan   Plan
	world  *World
	judge  *Judge
	watch  *watch
	source Source
	mount  *mount
	// hot is a file that many readers look at together; another one every few milliseconds.
	hot atomic.Pointer[File]
}

// Run runs a plan against the program, in a directory of its own that is gone afterwards. An error says that the test
// bed itself failed.
func Run(ctx context.Context, bin string, p Plan) (report Report, err error) {
	begun := time.Now()
	s := session.New(ctx)
	defer s.Close()
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	if p.Dir, err = s.TempDir(base, "millrace-liar-"); err != nil {
		return Report{}, err
	}
	// The source's patience is the client's, so that what is paced is told in the same measure.
	r := &run{world: Grow(p)}
	p.Timeout = stretch(p.Timeout).Round(100 * time.Millisecond)
	r.plan = p
	r.judge = NewJudge(r.world)
	r.watch = newWatch(r.judge, limitOf(p))
	if r.source, err = sources[p.Kind](p, r.world); err != nil {
		return Report{}, fmt.Errorf("making the source: %w", err)
	}
	s.Defer(func() { _ = r.source.Close() })
	if r.mount, err = newMount(s, bin, p, r.source); err != nil {
		return Report{}, err
	}
	if err := r.mount.mount(); err != nil {
		r.judge.Fault(RuleMount, "", "%v", err)
	} else {
		r.all(s.Context())
	}
	report = Report{
		Plan: p, Faults: r.judge.Faults(), Calls: r.judge.Calls.Load(), Refused: r.judge.Refused.Load(),
		Took: time.Since(begun), Told: map[string][]string{},
	}
	for _, f := range report.Faults {
		report.Told[f.Path] = r.world.Told(f.Path)
	}
	if len(report.Faults) > 0 {
		report.Log, _ = os.ReadFile(r.mount.log)
	}
	return report, context.Cause(s.Context())
}

// stretch follows the machine's pace, within reason: what is late is waited for.
func stretch(d time.Duration) time.Duration { return min(pace.Limit(d), slowest*d) }

// graces are what a call gets beyond the patience with the source, for a look-up and an open.
const graces = 10 * time.Second

// limitOf is how long a call may take: a look-up and an open, each of which the mount gives its patience and some
// grace.
func limitOf(p Plan) time.Duration { return 2*p.Timeout + stretch(graces) }

// all is the storm, the truce, and what comes after.
func (r *run) all(ctx context.Context) {
	// The monitor outlives an interrupt, to free readers that hang.
	done, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var monitor sync.WaitGroup
	monitor.Go(func() { r.monitor(ctx, done) })
	defer monitor.Wait()
	defer cancel()

	readers := r.storm(ctx)
	r.world.Truce()
	if ctx.Err() == nil && !r.judge.over() {
		r.settle()
	}
	for _, reader := range readers {
		reader.close()
	}
	switch {
	case ctx.Err() != nil || r.judge.over():
	case len(r.judge.Faults()) > 0:
		// What comes after it would only show the same again.
		r.deaths()
	default:
		r.again()
	}
}

// storm lies and reads for as long as the plan says. The readers still have open what they held.
func (r *run) storm(ctx context.Context) []*reader {
	storm, cancel := context.WithTimeout(ctx, r.plan.Length)
	defer cancel()
	var all sync.WaitGroup
	threads := make(chan int, r.plan.Readers)
	var readers []*reader
	for i := range r.plan.Readers {
		reader, err := newReader(r.world, r.judge, r.watch, r.mount.dir, r.plan.Seed.Dice("reader", i))
		if err != nil {
			break
		}
		reader.hot = &r.hot
		readers = append(readers, reader)
		all.Go(func() { reader.loop(storm, threads) })
	}
	all.Go(func() { r.hand(storm) })
	all.Go(func() { r.heat(storm) })
	all.Go(func() { r.ask(storm) })
	if r.plan.Signals {
		all.Go(func() { pester(storm, threads) })
	}
	if r.plan.Kill > 0 {
		all.Go(func() {
			for wait(storm, r.plan.Kill) {
				r.mount.kill()
			}
		})
	}
	all.Wait()
	return readers
}

// heat has readers meet at one file after the other.
func (r *run) heat(ctx context.Context) {
	dice, files := r.plan.Seed.Dice("hot"), r.world.Files()
	for wait(ctx, time.Duration(2+dice.IntN(30))*time.Millisecond) {
		r.hot.Store(pick(dice, files...))
	}
}

// wait waits, and reports whether the context outlived it.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pester sends each reader a signal that means nothing, as timers and profilers do.
func pester(ctx context.Context, threads <-chan int) {
	var tids []int
	for wait(ctx, 40*time.Millisecond) {
		for more := true; more; {
			select {
			case tid := <-threads:
				tids = append(tids, tid)
			default:
				more = false
			}
		}
		for _, tid := range tids {
			_ = unix.Tgkill(os.Getpid(), tid, syscall.SIGURG)
		}
	}
}

// hand changes what may change.
func (r *run) hand(ctx context.Context) {
	dice := r.plan.Seed.Dice("hand")
	var files, guests []*File
	for _, f := range r.world.Files() {
		switch {
		case f.Guest:
			guests = append(guests, f)
		case !f.Fixed:
			files = append(files, f)
		}
	}
	for wait(ctx, time.Duration(20+dice.IntN(130))*time.Millisecond) {
		for range min(len(guests), 4) {
			f := pick(dice, guests...)
			r.note(r.source.ShowTurn(f, r.world.Turn(f)))
		}
		if len(files) == 0 {
			continue
		}
		f := pick(dice, files...)
		_, v, _ := r.world.Look(f.Path)
		r.note(r.source.Show(f, r.world.Change(f, f.next(dice, v.Size))))
	}
}

// mostGrown bounds what a file grows to by changes.
const mostGrown = 6 << 20

// next draws the size of the version after one of that size.
func (f *File) next(dice *rand.Rand, size int64) int64 {
	other := 1 + (size+dice.Int64N(size+5000))%min(2*size+5000, mostGrown)
	switch {
	case f.Sign == Length && other == size:
		return size + 1
	case f.Sign == Length || f.Sign != Silent && chance(dice, 0.4):
		return other
	}
	return size
}

// note makes an error of the test bed itself a fault, so that no run passes without what it is about.
func (r *run) note(err error) {
	if err != nil {
		r.judge.Fault(RuleMount, "", "the test bed: %v", err)
	}
}

// monitor looks at the process, its memory, its tier, and calls that hang, until all is done. Where a call hangs, or
// the session is interrupted, it takes the mount away.
func (r *run) monitor(interrupted, done context.Context) {
	for n := 0; wait(done, 100*time.Millisecond); n++ {
		if interrupted.Err() != nil {
			r.breakOff()
			return
		}
		if n%3 == 0 {
			if memory := r.mount.memory(); memory > mostMemory {
				r.judge.Fault(RuleMemory, "", "a process of the mount has %d MiB of its own, the limit is %d",
					memory>>20, mostMemory>>20)
			}
			if tier := r.mount.tierBytes(); tier > r.plan.Quota+tierSlack {
				r.judge.Fault(RuleTier, "", "the tier takes %d MiB at a quota of %d", tier>>20, r.plan.Quota>>20)
			}
			r.deaths()
		}
		if r.watch.look() {
			r.breakOff()
			return
		}
	}
}

// deaths makes each death that was not ours a fault.
func (r *run) deaths() {
	if n := r.mount.deaths(); n > 0 {
		r.judge.Fault(RuleDeath, "", "%d times by itself: %s", n, r.mount.cause())
	}
}

// breakOff frees readers that hang: the process tells where it stands, and the mount goes.
func (r *run) breakOff() {
	r.judge.end()
	if serving := r.mount.serving(); serving != 0 {
		_ = syscall.Kill(serving, syscall.SIGQUIT)
		time.Sleep(200 * time.Millisecond)
	}
	r.mount.millrace.Discard(r.mount.dir)
}

// again mounts everything anew where the plan says so, looks whether the cache is still warm, and unmounts.
func (r *run) again() {
	r.deaths()
	switch r.plan.Again {
	case "":
		r.unmount()
		return
	}
	r.fill()
	switch r.plan.Again {
	case "unmount":
		if !r.unmount() {
			return
		}
	case "kill":
		r.mount.killAll()
	}
	if err := r.mount.mount(); err != nil {
		r.judge.Fault(RuleMount, "", "mounting again after %s: %v", r.plan.Again, err)
		return
	}
	r.warm()
	r.settle()
	r.deaths()
	r.unmount()
}

func (r *run) unmount() bool {
	err := r.mount.unmount()
	if err != nil {
		r.judge.Fault(RuleMount, "", "%v", err)
	}
	return err == nil
}

// fill reads what is to be warm past the kernel's pages. The truce may have read it from there, and the tier may have
// lost it: a reader frees files.
func (r *run) fill() {
	reader, err := newReader(r.world, r.judge, r.watch, r.mount.dir, r.plan.Seed.Dice("fill"))
	if err != nil {
		return
	}
	defer reader.close()
	for _, f := range r.kept() {
		_, v, _ := r.world.Look(f.Path)
		if err := errors.Join(reader.forget(f), reader.compare(f, v)); err != nil {
			r.judge.Fault(RuleTruce, f.Path, "past the kernel's pages: %v", err)
		}
	}
}

// warm reads what was read whole before and had no reason to go, and compares what that took from the source.
func (r *run) warm() {
	reader, err := newReader(r.world, r.judge, r.watch, r.mount.dir, r.plan.Seed.Dice("warm"))
	if err != nil {
		return
	}
	defer reader.close()
	before, err := r.mount.millrace.Status(r.mount.dir)
	if err != nil {
		r.judge.Fault(RuleMount, "", "after mounting again: %v", err)
		return
	}
	if r.crowded() {
		return
	}
	files := r.kept()
	for i, f := range files {
		_, v, _ := r.world.Look(f.Path)
		if err := reader.compare(f, v); err != nil {
			r.judge.Fault(RuleTruce, f.Path, "after mounting again: %v", err)
		}
		dir, _ := split(f.Path)
		if i+1 < len(files) && strings.HasPrefix(files[i+1].Path, dir+"/") {
			continue
		}
		// Asked once a directory: each question starts a process.
		after, err := r.mount.millrace.Status(r.mount.dir)
		if err == nil && after.Counters.BytesSource > before.Counters.BytesSource {
			r.judge.Fault(RuleCold, dir, "mounted again after %s, %d bytes of it come from the source anew",
				r.plan.Again, after.Counters.BytesSource-before.Counters.BytesSource)
			return
		}
	}
}

// keeper is a source that keeps what was read of it. A worker that has lied is given rest, and then files are read past
// it, so that only the worker knows what it has.
type keeper interface{ Keeps(path string) bool }

// kept are the files that the truce has read whole and whose versions are beyond doubt, in the order of their paths.
func (r *run) kept() (files []*File) {
	k, keeps := r.source.(keeper)
	for _, f := range r.world.Files() {
		if keeps && !k.Keeps(f.Path) {
			continue
		}
		if fails, _ := f.fails(); f.Fixed && f.Sign == Strong && !fails && !f.Guest && f.Head == "" && f.Tags < 2 &&
			!f.Bare {
			files = append(files, f)
		}
	}
	return files
}

// crowded reports whether the tier may have had to let go of files: all that there is takes room, and so do versions
// that were replaced a moment ago.
func (r *run) crowded() bool {
	var sum int64
	for _, f := range r.world.Files() {
		_, v, _ := r.world.Look(f.Path)
		sum += v.Size
	}
	return sum*2 > r.plan.Quota
}

// Keep writes what explains a failed run into a directory, and returns the file.
func (r Report) Keep(dir string) (string, error) {
	path := filepath.Join(dir, fmt.Sprintf("seed-%d.txt", r.Plan.Seed))
	text := fmt.Appendf(nil, "seed %d: %s\n", r.Plan.Seed, r.Plan)
	for _, f := range r.Faults {
		text = fmt.Appendf(text, "\n%s\n", f)
		for _, line := range r.Told[f.Path] {
			text = fmt.Appendf(text, "    told %s\n", line)
		}
	}
	text = append(append(text, "\nthe mount's log:\n"...), r.Log...)
	return path, errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, text, 0o644))
}
