package liar

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/pace"
)

// TestHugeFileAmongOthers reads 1,000 files by 8 readers, without and with a file of 2^62 bytes that they open all the
// while: that file is EFBIG, no other fails, and p99 is at most twice that without it.
func TestHugeFileAmongOthers(t *testing.T) {
	for _, kind := range []Kind{HTTP, Local} {
		t.Run(string(kind), func(t *testing.T) {
			without := manyReads(t, kind, "")
			with := manyReads(t, kind, "4611686018427387904")
			t.Logf("p99 of a file is %v without and %v with the file of 2^62 bytes", without, with)
			// Below a millisecond it is the scheduler that is measured.
			pace.Within(t, "p99 beside a file of 2^62 bytes", with, 2*max(without, time.Millisecond))
		})
	}
}

// manyReads reads 1,000 files by 8 readers, which open a file of that claimed size too where it is given, and returns
// the 99th percentile of the time that a file took.
func manyReads(t *testing.T, kind Kind, claims string) time.Duration {
	t.Helper()
	b := newBed(t, Plan{Kind: kind, Seed: 1}, func(w *World) {
		w.AddDir(&Dir{Path: "d"})
		for i := range 1000 {
			w.AddFile(&File{Path: fmt.Sprintf("d/f%04d", i), Honest: true, Fixed: true}, int64(100+i*7))
		}
		if claims != "" {
			w.AddFile(&File{Path: "d/huge", Claims: claims, Fixed: true}, 1)
		}
	})
	var mu sync.Mutex
	var took []time.Duration
	b.within("reading 1,000 files by 8 readers", time.Minute, func() {
		var all sync.WaitGroup
		for n := range 8 {
			r := b.reader(n)
			all.Go(func() {
				mine := readEach(t, r, b.world.Files(), b.mount.dir)
				mu.Lock()
				defer mu.Unlock()
				took = append(took, mine...)
			})
		}
		all.Wait()
	})
	b.faults()
	if err := b.mount.unmount(); err != nil {
		t.Error(err)
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// readEach reads the files in an order of its own, the one of a false size before each tenth other, and returns how
// long each of the others took.
func readEach(t *testing.T, r *reader, files []*File, mnt string) (took []time.Duration) {
	t.Helper()
	files = slices.Clone(files)
	var huge *File
	files = slices.DeleteFunc(files, func(f *File) bool {
		if f.Claims != "" {
			huge = f
		}
		return f.Claims != ""
	})
	r.dice.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for i, f := range files {
		if huge != nil && i%10 == 0 {
			if _, err := openRaw(filepath.Join(mnt, huge.Path), 0); !errors.Is(err, unix.EFBIG) {
				t.Errorf("the file of %s bytes is opened with %v, and EFBIG is right", huge.Claims, err)
				huge = nil
			}
		}
		begun := time.Now()
		_, v, _ := r.world.Look(f.Path)
		if err := r.compare(f, v); err != nil {
			t.Errorf("%s: %v", f.Path, err)
		}
		took = append(took, time.Since(begun))
		if errors.Is(r.gone(), syscall.ENOTCONN) {
			return took
		}
	}
	return took
}

// gone is ENOTCONN where the mount has died.
func (r *reader) gone() error {
	var st unix.Statfs_t
	return unix.Statfs(r.mnt, &st)
}
