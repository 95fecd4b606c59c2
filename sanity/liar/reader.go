package liar

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// mostRead is the longest read, in bytes.
	mostRead = 1 << 20
	// mostHeld is how many files a reader keeps open beside the one that it reads.
	mostHeld = 4
)

// reader uses a mount as programs do, and has the judge look at all that it gets.
type reader struct {
	world *World
	judge *Judge
	watch *watch
	mnt   string
	dice  *rand.Rand
	// buf is aligned for O_DIRECT; room is the judge's scratch. Both have mostRead bytes.
	buf, room []byte
	held      []held
	files     []*File
	dirs      []*Dir
	// hot, where it is set, is where readers meet.
	hot *atomic.Pointer[File]
}

// held is a file that stays open.
type held struct {
	fd int
	h  *Handle
}

func newReader(w *World, j *Judge, watch *watch, mnt string, dice *rand.Rand) (*reader, error) {
	buf, err := aligned(mostRead)
	if err != nil {
		return nil, err
	}
	return &reader{
		world: w, judge: j, watch: watch, mnt: mnt, dice: dice, buf: buf, room: make([]byte, mostRead),
		files: w.Files(), dirs: w.Dirs(),
	}, nil
}

// close gives back what the reader has.
func (r *reader) close() {
	r.drop()
	_ = unix.Munmap(r.buf)
}

// drop closes what is held open.
func (r *reader) drop() {
	for _, h := range r.held {
		_ = unix.Close(h.fd)
	}
	r.held = nil
}

// loop reads until the context ends. Signals reach its thread all the while (see pester).
func (r *reader) loop(ctx context.Context, threads chan<- int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	threads <- unix.Gettid()
	for ctx.Err() == nil {
		if chance(r.dice, 0.15) {
			r.list(pick(r.dice, r.dirs...))
			continue
		}
		f := pick(r.dice, r.files...)
		if hot := r.hot.Load(); hot != nil && chance(r.dice, 0.5) {
			f = hot
		}
		switch r.dice.IntN(6) {
		case 0, 1:
			r.sequential(f)
		case 2:
			r.random(f)
		case 3:
			r.mapped(f)
		case 4:
			r.direct(f)
		case 5:
			r.hold(f)
		}
	}
}

// path is where a file of the world is in the mount.
func (r *reader) path(of string) string { return filepath.Join(r.mnt, of) }

// call makes a call under the watch, and has its error judged.
func (r *reader) call(name string, f *File, fn func() error) error {
	end := r.watch.begin(name, f.Path)
	began := time.Now()
	err := fn()
	lasted := time.Since(began)
	end()
	if err != nil && (!f.Guest || !errors.Is(err, syscall.ENOENT)) {
		r.judge.Failed(Failure{Call: name, Path: f.Path, Honest: f.Honest, Lasted: lasted, Err: err})
	}
	return err
}

// open opens a file and judges its size.
func (r *reader) open(f *File, flags int) (fd int, size int64, h *Handle, err error) {
	err = r.call("open", f, func() (err error) {
		fd, err = openRaw(r.path(f.Path), flags)
		return err
	})
	if err != nil {
		return -1, 0, nil, err
	}
	err = r.call("fstat", f, func() (err error) {
		size, err = sizeOf(fd)
		return err
	})
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, nil, err
	}
	h = r.judge.Opened(f, r.room)
	if f.Claims == "" {
		h.Size(size)
	}
	return fd, size, h, nil
}

// read reads at an offset and judges what comes: n is 0 at the end of the file.
func (r *reader) read(how string, fd int, h *Handle, off int64, length int) (n int, err error) {
	err = r.call(how, h.file, func() (err error) {
		n, err = unix.Pread(fd, r.buf[:length], off)
		return err
	})
	if err != nil || h.file.Claims != "" {
		return n, err
	}
	if n > 0 {
		h.Bytes(how, off, r.buf[:n])
	}
	return n, nil
}

// sequential reads a file to its end.
func (r *reader) sequential(f *File) {
	fd, _, h, err := r.open(f, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	length := pick(r.dice, 1000, 4096, 65536, mostRead)
	if f.Claims != "" {
		_, _ = r.read("read", fd, h, 0, length)
		return
	}
	for off := int64(0); ; {
		n, err := r.read("read", fd, h, off, length)
		if err != nil {
			return
		}
		if n == 0 {
			h.End(off)
			return
		}
		off += int64(n)
	}
}

// random reads pieces of a file.
func (r *reader) random(f *File) {
	fd, size, h, err := r.open(f, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	r.linger()
	for range 4 {
		if _, err := r.read("read", fd, h, r.dice.Int64N(max(size, 1)), 1+r.dice.IntN(200_000)); err != nil {
			return
		}
	}
}

// linger waits now and then, so that a file changes between two calls.
func (r *reader) linger() {
	if chance(r.dice, 0.2) {
		time.Sleep(time.Duration(r.dice.IntN(100)) * time.Millisecond)
	}
}

// direct reads from the end to the beginning with O_DIRECT, which no memory of the kernel's answers.
func (r *reader) direct(f *File) {
	fd, size, h, err := r.open(f, unix.O_DIRECT)
	if err != nil || f.Claims != "" {
		if err == nil {
			_, _ = r.read("direct read", fd, h, 0, page)
			_ = unix.Close(fd)
		}
		return
	}
	defer func() { _ = unix.Close(fd) }()
	length := int64(pick(r.dice, page, 65536, mostRead))
	for off := size / length * length; off >= 0; off -= length {
		n, err := r.read("direct read", fd, h, off, int(length))
		if err != nil {
			return
		}
		if want := min(length, size-off); int64(n) < want {
			h.End(off + int64(n))
		}
	}
}

// mapped reads a file by a mapping.
func (r *reader) mapped(f *File) {
	fd, size, h, err := r.open(f, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if size <= 0 || size > 64<<20 {
		return
	}
	var mapping []byte
	err = r.call("mmap", f, func() (err error) {
		mapping, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		return
	}
	defer func() { _ = unix.Munmap(mapping) }()
	length := int64(pick(r.dice, page, 65536, 300_000))
	for off := int64(0); off < size; off += length {
		p := r.buf[:min(length, size-off)]
		err := r.call("reading the mapping", f, func() error { return peek(mapping, off, p) })
		if err != nil {
			return
		}
		h.Bytes("reading the mapping", off, p)
	}
}

// hold keeps a file open, and reads in one that was kept.
func (r *reader) hold(f *File) {
	if len(r.held) >= mostHeld {
		old := r.held[0]
		r.held = r.held[1:]
		_, _ = r.read("read of a file held open", old.fd, old.h, r.dice.Int64N(1<<20), 65536)
		_ = unix.Close(old.fd)
	}
	fd, size, h, err := r.open(f, 0)
	if err != nil {
		return
	}
	r.linger()
	if _, err := r.read("read", fd, h, r.dice.Int64N(max(size, 1)), page); err == nil || !f.Honest {
		r.held = append(r.held, held{fd: fd, h: h})
		return
	}
	_ = unix.Close(fd)
}

// entries reads a directory to its end, with pauses in which it may change.
func (r *reader) entries(d *Dir, pause time.Duration) ([]Seen, error) {
	as := &File{Path: d.Path, Honest: d.Honest}
	fd := -1
	err := r.call("opening the directory", as, func() (err error) {
		fd, err = openRaw(r.path(d.Path), unix.O_DIRECTORY)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	var seen []Seen
	length := pick(r.dice, 2048, 4096, 32768)
	for {
		n := 0
		err := r.call("readdir", as, func() (err error) {
			n, err = unix.ReadDirent(fd, r.buf[:length])
			return err
		})
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return seen, nil
		}
		if seen, err = parseDirents(r.buf[:n], seen); err != nil {
			r.judge.Fault(RuleEntries, d.Path, "%v", err)
			return nil, err
		}
		time.Sleep(pause)
	}
}

// list reads a directory and judges it.
func (r *reader) list(d *Dir) {
	if seen, err := r.entries(d, pick(r.dice, 0, 0, 5*time.Millisecond, 20*time.Millisecond)); err == nil {
		r.judge.Listed(d, seen)
	}
}
