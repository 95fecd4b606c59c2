package liar

import (
	"math/rand/v2"
	"testing"
	"time"

	"millrace.io/millrace/sanity/session"
)

// bed is a mounted world, for tests that say themselves what happens.
type bed struct {
	t     *testing.T
	world *World
	judge *Judge
	mount *mount
	watch *watch
	// source is what is mounted; web is it where it is a web server.
	source Source
	web    *web
}

// newBed mounts a world by the real program.
func newBed(t *testing.T, p Plan, grow func(*World)) *bed {
	t.Helper()
	needsMount(t)
	s := session.New(t.Context())
	t.Cleanup(s.Close)
	var err error
	if p.Dir, err = s.TempDir("/dev/shm", "millrace-liar-"); err != nil {
		t.Fatal(err)
	}
	if p.Timeout == 0 {
		p.Timeout = stretch(5 * time.Second).Round(time.Second)
	}
	if p.Quota == 0 {
		p.Quota = 64 << 20
	}
	if p.Connections == 0 {
		p.Connections = 16
	}
	p.Passthrough = true
	b := &bed{t: t, world: NewWorld(p.Seed)}
	b.judge = NewJudge(b.world)
	b.watch = newWatch(b.judge, limitOf(p))
	grow(b.world)
	source, err := sources[p.Kind](p, b.world)
	if err != nil {
		t.Fatal(err)
	}
	s.Defer(func() { _ = source.Close() })
	b.source = source
	b.web, _ = source.(*web)
	if b.mount, err = newMount(s, bin, p, source); err != nil {
		t.Fatal(err)
	}
	if err := b.mount.mount(); err != nil {
		t.Fatal(err)
	}
	return b
}

// reader is one more reader of the bed.
func (b *bed) reader(n int) *reader {
	b.t.Helper()
	r, err := newReader(b.world, b.judge, b.watch, b.mount.dir, rand.New(rand.NewPCG(uint64(n), 1)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(r.close)
	return r
}

// faults fails the test for each fault, a call that hangs, and each death of the process.
func (b *bed) faults() {
	b.t.Helper()
	b.watch.look()
	if n := b.mount.deaths(); n > 0 {
		b.t.Errorf("the process died %d times: %s", n, b.mount.cause())
	}
	for _, f := range b.judge.Faults() {
		b.t.Error(f)
	}
}

// within fails the test where what may hang does not end, and takes the mount away, so that it ends.
func (b *bed) within(what string, limit time.Duration, fn func()) {
	b.t.Helper()
	ended := make(chan struct{})
	go func() { defer close(ended); fn() }()
	select {
	case <-ended:
	case <-time.After(stretch(limit)):
		b.t.Errorf("%s has no end after %v", what, stretch(limit))
		b.judge.end()
		b.mount.millrace.Discard(b.mount.dir)
		<-ended
	}
}

// add adds a file to the world before it is mounted.
func add(w *World, f File, size int64) {
	f.Path = "d/" + f.Path
	w.AddFile(&f, size)
}

// file is a file of the world.
func (b *bed) file(name string) *File {
	b.t.Helper()
	f, _, ok := b.world.Look("d/" + name)
	if !ok {
		b.t.Fatalf("the world has no %q", name)
	}
	return f
}

// right fails the test where the file is not its present version when it is opened now.
func (b *bed) right(r *reader, f *File, when string) {
	b.t.Helper()
	b.within("reading "+f.Path, time.Minute, func() {
		_, v, _ := b.world.Look(f.Path)
		if err := r.compare(f, v); err != nil {
			b.t.Errorf("%s: %v", when, err)
		}
	})
}

// change makes the next version of a file, and shows it.
func (b *bed) change(f *File, size int64) {
	b.t.Helper()
	if err := b.source.Show(f, b.world.Change(f, size)); err != nil {
		b.t.Fatal(err)
	}
}

// end unmounts and fails the test for each fault.
func (b *bed) end() {
	b.t.Helper()
	b.faults()
	if err := b.mount.unmount(); err != nil {
		b.t.Error(err)
	}
}

// tells has the web server tell the lies that the script names.
func (b *bed) tells(script func(what int, path string) string) { b.web.script.Store(&script) }
