package liar

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the storm found, each as the smallest case that shows it.

// TestCaseSameSizeAndTime replaces a file by one of the same size and time, as reproducible builds do.
func TestCaseSameSizeAndTime(t *testing.T) {
	b := newBed(t, Plan{Kind: Local}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		add(w, File{Path: "artifact", Sign: Silent}, 5000)
	})
	r, f := b.reader(1), b.file("artifact")
	b.right(r, f, "at first")
	b.change(f, 5000)
	b.right(r, f, "after it was replaced")
	b.end()
}

// TestCaseOverwrittenWhileSent changes a file of a weak ETag while half of its body is sent.
func TestCaseOverwrittenWhileSent(t *testing.T) {
	for name, sign := range map[string]Sign{"weak": Weak, "clock": Clock} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, Plan{Kind: HTTP}, func(w *World) {
				w.AddDir(&Dir{Path: "d"})
				add(w, File{Path: "f", Sign: sign}, 700_000)
			})
			var once atomic.Bool
			b.tells(func(what int, path string) string {
				if what == aboutBody && path == "d/f" && once.CompareAndSwap(false, true) {
					return "overwritten while it is sent"
				}
				return ""
			})
			r, f := b.reader(1), b.file("f")
			b.within("reading it", time.Minute, func() { r.sequential(f) })
			b.right(r, f, "afterwards")
			b.end()
		})
	}
}

// TestCaseGrownInChunks has a file grow between the question for its size and the body, which comes in chunks without a
// mark.
func TestCaseGrownInChunks(t *testing.T) {
	b := newBed(t, Plan{Kind: HTTP}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		add(w, File{Path: "f", Sign: Length, Bare: true}, 100)
	})
	var once atomic.Bool
	b.tells(func(what int, path string) string {
		if what == aboutBody && path == "d/f" && once.CompareAndSwap(false, true) {
			return "grown a moment before"
		}
		return ""
	})
	r, f := b.reader(1), b.file("f")
	b.within("reading it", time.Minute, func() { r.sequential(f) })
	b.right(r, f, "afterwards")
	b.end()
}

// TestCase404ForAMoment answers one request for bytes by 404, while the file stays open.
func TestCase404ForAMoment(t *testing.T) {
	b := newBed(t, Plan{Kind: HTTP}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		add(w, File{Path: "f", Fixed: true}, 3<<20)
	})
	var gone atomic.Bool
	b.tells(func(what int, path string) string {
		if what == aboutBody && path == "d/f" && gone.Load() {
			return "404 for a moment"
		}
		return ""
	})
	r, f := b.reader(1), b.file("f")
	b.within("reading it", time.Minute, func() {
		fd, _, h, err := r.open(f, 0)
		if err != nil {
			t.Error(err)
			return
		}
		r.held = append(r.held, held{fd: fd, h: h})
		gone.Store(true)
		_, _ = r.read("read", fd, h, 2<<20, page)
		gone.Store(false)
	})
	b.right(r, f, "after the moment, while it is open still")
	r.drop()
	b.end()
}

// TestCaseBackends has two backends in turn, with ETags of their own.
func TestCaseBackends(t *testing.T) {
	b := newBed(t, Plan{Kind: HTTP}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		for i := range 10 {
			add(w, File{Path: fmt.Sprintf("f%d", i), Tags: 2, Fixed: true}, 200_000)
		}
	})
	r := b.reader(1)
	for _, f := range b.world.Files() {
		b.right(r, f, f.Path)
	}
	b.end()
}

// TestCaseHeadSaysZero has HEAD say 0 of each file.
func TestCaseHeadSaysZero(t *testing.T) {
	b := newBed(t, Plan{Kind: HTTP}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		for i, head := range []string{"zero", "half", "double", "none", "405"} {
			add(w, File{Path: strconv.Itoa(i), Head: head, Fixed: true}, 200_000)
		}
	})
	r := b.reader(1)
	for _, f := range b.world.Files() {
		b.right(r, f, "HEAD: "+f.Head)
	}
	b.end()
}

// TestCaseListingReadOn removes and adds names while a directory is read.
func TestCaseListingReadOn(t *testing.T) {
	for _, kind := range []Kind{Local, HTTP, S3} {
		t.Run(string(kind), func(t *testing.T) {
			b := newBed(t, Plan{Kind: kind}, func(w *World) {
				w.AddDir(&Dir{Path: "d"})
				for i := range 800 {
					add(w, File{Path: fmt.Sprintf("steady%04d", i), Fixed: true}, 1)
				}
				for i := range 200 {
					w.AddGuest(&File{Path: fmt.Sprintf("d/a-guest%04d", i), Guest: true, Fixed: true}, 1)
				}
			})
			turn := func() {
				for _, f := range b.world.Files() {
					if !f.Guest {
						continue
					}
					if err := b.source.ShowTurn(f, b.world.Turn(f)); err != nil {
						t.Error(err)
					}
				}
			}
			turn()
			d, _ := b.world.Dir("d")
			r, other := b.reader(1), b.reader(2)
			for range 4 {
				b.within("reading the directory", time.Minute, func() {
					var ended atomic.Bool
					var turning sync.WaitGroup
					turning.Go(func() {
						for !ended.Load() {
							time.Sleep(20 * time.Millisecond)
							turn()
							// Another reader has the cache list it anew.
							_, _ = other.entries(d, 0)
						}
					})
					if seen, err := r.entries(d, 30*time.Millisecond); err != nil {
						t.Error(err)
					} else {
						b.judge.Listed(d, seen)
					}
					ended.Store(true)
					turning.Wait()
				})
			}
			b.end()
		})
	}
}

// TestCaseSignals sends signals to a thread whose calls the source takes its time to answer.
func TestCaseSignals(t *testing.T) {
	b := newBed(t, Plan{Kind: HTTP, Timeout: 2 * time.Second}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		for i := range 3 {
			add(w, File{Path: strconv.Itoa(i), Fixed: true}, 200_000)
		}
	})
	b.tells(func(what int, _ string) string {
		if what == aboutHead {
			return "the head comes late"
		}
		return ""
	})
	r := b.reader(1)
	b.within("opening files", time.Minute, func() {
		ctx, cancel := context.WithCancel(t.Context())
		var pestering sync.WaitGroup
		threads := make(chan int, 1)
		pestering.Go(func() { pester(ctx, threads) })
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		threads <- unix.Gettid()
		for _, f := range b.world.Files() {
			fd, err := openRaw(r.path(f.Path), 0)
			if errors.Is(err, syscall.EINTR) {
				t.Errorf("open of a file that the source takes a second to describe: %v", err)
			}
			if err == nil {
				_ = unix.Close(fd)
			}
		}
		cancel()
		pestering.Wait()
	})
	b.end()
}

// TestCaseNamesStayWarm mounts again what was read whole, with names that are no text.
func TestCaseNamesStayWarm(t *testing.T) {
	b := newBed(t, Plan{Kind: Local, Again: "unmount"}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		for i, name := range append([]string{"plain"}, brokenNames...) {
			add(w, File{Path: name, Fixed: true}, int64(1+i*1000))
		}
	})
	r := b.reader(1)
	for _, f := range b.world.Files() {
		b.right(r, f, f.Path)
	}
	run := &run{plan: b.mount.plan, world: b.world, judge: b.judge, watch: b.watch, source: b.source, mount: b.mount}
	run.again()
	b.faults()
}
