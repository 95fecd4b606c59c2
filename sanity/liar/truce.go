package liar

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wanted is how long after the last lie everything has to be right, beside the ages of names that the mount may
// believe.
const wanted = 8 * time.Second

// mostSecondsOfNames is by how much a name may be older than --revalidate: the cache and the kernel each believe it ten
// times as long.
const mostSecondsOfNames = 20

// settle checks each file and directory until it is right, and makes what is not right in time a fault.
func (r *run) settle() {
	deadline := time.Now().Add(stretch(wanted + mostSecondsOfNames*r.plan.Revalidate))
	files, dirs := r.world.Files(), r.world.Dirs()
	next := make(chan func(*reader) (what, path string, err error))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			reader, err := newReader(r.world, r.judge, r.watch, r.mount.dir, r.plan.Seed.Dice("truce", i))
			if err != nil {
				return
			}
			defer reader.close()
			for check := range next {
				r.until(deadline, reader, check)
			}
		})
	}
	for _, f := range files {
		next <- func(by *reader) (string, string, error) { return "reading it", f.Path, by.check(f) }
	}
	for _, d := range dirs {
		next <- func(by *reader) (string, string, error) { return "listing it", d.Path, by.checkDir(d) }
	}
	close(next)
	all.Wait()
}

// until repeats a check until it is right or late.
func (r *run) until(deadline time.Time, by *reader, check func(*reader) (what, path string, err error)) {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		what, path, err := check(by)
		if err == nil || r.judge.over() {
			return
		}
		if time.Now().After(deadline) {
			r.judge.Fault(RuleTruce, path, "%s, %v after the last lie: %v", what, wanted, err)
			return
		}
		time.Sleep(pause)
	}
}

// check reads a file, which must be its present version, or fail as it has to.
func (r *reader) check(f *File) error {
	_, v, there := r.world.Look(f.Path)
	if !there {
		return nil
	}
	fails, which := f.fails()
	err := r.compare(f, v)
	switch {
	case !fails:
		return err
	case err == nil || errors.Is(err, errLate):
		return errors.New("it is read as if it were right")
	case which != 0 && !errors.Is(err, which):
		return fmt.Errorf("%w, and %w is right", err, which)
	}
	return nil
}

// fails reports whether reading the file has to fail, and by which errno where only one is right.
func (f *File) fails() (bool, syscall.Errno) {
	switch {
	case f.Claims != "" && !strings.HasPrefix(f.Claims, "-") && len(f.Claims) <= len("9223372036854775807") &&
		f.Claims <= "9223372036854775807":
		return true, syscall.EFBIG
	case f.Claims != "" || f.Link != "" && f.Link != "moved":
		return true, 0
	}
	return false, 0
}

// errLate says that what was read is right for another version than the present one.
var errLate = errors.New("not the present version")

// compare reads a file whole and compares it with a version.
func (r *reader) compare(f *File, v Version) error {
	fd, size, h, err := r.open(f, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if f.Claims != "" {
		_, err := r.read("read", fd, h, 0, page)
		return err
	}
	var late error
	untold := r.world.untold(f, v)
	off := int64(0)
	for {
		n, err := r.read("read", fd, h, off, mostRead)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if late == nil && !untold && !holds(v.Content, off, r.buf[:n], r.room) {
			late = fmt.Errorf("%w (%d of %d): %s", errLate, v.Number, len(r.world.Versions(f)),
				h.describe(off, r.buf[:n]))
		}
		off += int64(n)
	}
	h.End(off)
	if late == nil && (off != v.Size || size != v.Size) {
		late = fmt.Errorf("%w: it has %d bytes, fstat says %d, and %d are right", errLate, off, size, v.Size)
	}
	if late != nil {
		return late
	}
	return r.compareTime(fd, f, v)
}

// forget has the kernel drop what it has of a file.
func (r *reader) forget(f *File) error {
	fd, _, _, err := r.open(f, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), unix.Close(fd))
}

// compareTime compares what fstat says of the time.
func (r *reader) compareTime(fd int, f *File, v Version) error {
	if v.ModTime.IsZero() || f.Pages || f.Tags > 1 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if got := time.Unix(st.Mtim.Unix()); !got.Equal(v.ModTime) {
		return fmt.Errorf("its time is %v, and %v is right", got.UTC(), v.ModTime.UTC())
	}
	return nil
}

// checkDir lists a directory, which must be as it is now.
func (r *reader) checkDir(d *Dir) error {
	seen, err := r.entries(d, 0)
	if err != nil {
		return err
	}
	r.judge.Listed(d, seen)
	entries, _ := r.world.List(d.Path)
	var want, got []string
	for _, e := range entries {
		if shown(e.Name) {
			want = append(want, e.Name)
		}
	}
	for _, e := range seen {
		if !d.Loop || e.Name != loopName {
			got = append(got, e.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("it lists %d names, and %d are right: %s", len(got), len(want), differences(want, got))
	}
	return nil
}

// differences names what only one of two sorted lists has.
func differences(want, got []string) string {
	only := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(s string) bool {
			_, found := slices.BinarySearch(b, s)
			return found
		})
	}
	return "missing " + few(only(want, got)) + "; too many " + few(only(got, want))
}
