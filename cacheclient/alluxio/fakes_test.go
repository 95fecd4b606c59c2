package alluxio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/liar/fakealluxio"
	"millrace.io/millrace/sanity/pace"
)

// faked is a client of a master and a worker that lie as a test says.
type faked struct {
	*Client
	// dir is what the fake shows, tier where it has its blocks.
	dir, tier string
	// alone has the client follow no mount table.
	alone sync.Once
}

var fakes atomic.Int64

// newFaked starts a fake, which shows a directory with what put makes.
func newFaked(t *testing.T, put func(dir string), fake func(*fakealluxio.Config), change func(*Config)) *faked {
	t.Helper()
	tier, err := os.MkdirTemp("/dev/shm", "millrace-fake-*") //nolint:usetesting // a worker's tier is in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tier) })
	f := &faked{dir: t.TempDir(), tier: tier}
	put(f.dir)
	cfg := fakealluxio.Config{Root: f.dir, Tier: f.tier, BlockSize: mib}
	if fake != nil {
		fake(&cfg)
	}
	server, err := fakealluxio.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	addr, err := rpc.ParseAddress(server.Address())
	if err != nil {
		t.Fatal(err)
	}
	own := Config{
		Address: addr, Timeout: pace.Limit(3 * time.Second), TTL: -1, Log: testLog(t),
		Security: rpc.Security{User: "fake-" + strconv.FormatInt(fakes.Add(1), 10)},
	}
	if change != nil {
		change(&own)
	}
	f.Client = newClient(t, own)
	return f
}

// lying draws for one call and path, and tells the truth otherwise.
func lying(call, path string) func(c *fakealluxio.Config) {
	n := uint64(0)
	var mu sync.Mutex
	return func(c *fakealluxio.Config) {
		c.Dice = func(of, about string) *rand.Rand {
			if of != call || about != path {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			n++
			return rand.New(rand.NewPCG(n, 1))
		}
	}
}

// odd is a source whose answers a test decides.
type odd struct {
	info  cacheclient.Info
	bytes []byte

	// open and stat are asked before each answer with the number of the request, from 1 on; nil has all be well.
	open func(n int) (*ufs.Body, error)
	stat func(n int) error

	opens, stats, confirms atomic.Int64
}

func (o *odd) String() string   { return "odd" }
func (o *odd) Identity() string { return "odd" }
func (o *odd) Close() error     { return nil }

func (o *odd) List(context.Context, string, func(cacheclient.Info) error) error { return nil }

func (o *odd) Stat(_ context.Context, path string) (cacheclient.Info, error) {
	n := o.stats.Add(1)
	if o.stat != nil {
		if err := o.stat(int(n)); err != nil {
			return cacheclient.Info{}, err
		}
	}
	if path != o.info.Path {
		return cacheclient.Info{}, fs.ErrNotExist
	}
	return o.info, nil
}

func (o *odd) Open(_ context.Context, _ cacheclient.Info, off, length int64) (*ufs.Body, error) {
	n := o.opens.Add(1)
	if o.open != nil {
		if body, err := o.open(int(n)); body != nil || err != nil {
			return body, err
		}
	}
	return &ufs.Body{
		ReadCloser: io.NopCloser(bytes.NewReader(o.bytes[off : off+length])), Start: off,
		End: off + length,
	}, nil
}

// reads has a client read a path from an odd source, which has the same version as the fake.
func (f *faked) reads(t *testing.T, path string, o *odd) {
	t.Helper()
	info, err := f.Stat(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(f.dir, path))
	if err != nil {
		t.Fatal(err)
	}
	o.bytes = data
	o.info = cacheclient.Info{Path: path, Size: info.Size, ModTime: info.ModTime}
	// The mount table is not followed any more.
	f.alone.Do(f.sources.following.Lock)
	f.sources.mu.Lock()
	defer f.sources.mu.Unlock()
	for _, m := range f.sources.mounts {
		_ = m.store.Close()
	}
	f.sources.mounts = []mounted{{store: o, url: "odd"}}
}

// blocksOf are the names of the blocks in the fake's tier.
func (f *faked) blocksOf(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(f.tier)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names
}

// one puts a file of a version.
func one(t *testing.T, v version) func(dir string) {
	t.Helper()
	return func(dir string) { v.put(t, dir).age(t, dir) }
}

// TestAFillIsConfirmedBeforeItIsKept has a file be overwritten in place while a fill reads it: what the source cannot
// confirm is neither shown nor committed, and each run is confirmed once.
func TestAFillIsConfirmedBeforeItIsKept(t *testing.T) {
	noLeaks(t)
	v := version{path: "f", size: mib}
	for name, stale := range map[string]bool{"the version": false, "a mix": true} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t, one(t, v), nil, nil)
			o := &odd{}
			o.open = func(int) (*ufs.Body, error) {
				data := bytes.Clone(o.bytes)
				if stale {
					clear(data[mib/2:])
				}
				return &ufs.Body{
					ReadCloser: io.NopCloser(bytes.NewReader(data)), End: v.size,
					Confirm: func(context.Context) error {
						o.confirms.Add(1)
						if stale {
							return cacheclient.ErrStale
						}
						return nil
					},
				}, nil
			}
			f.reads(t, v.path, o)
			opened := open(t, f.Client, v.path).(*file)
			l := opened.l
			fl, err := f.fillOf(t.Context(), opened, 0, cacheclient.Identify(o.info))
			if err != nil {
				t.Fatal(err)
			}
			d, err := fl.read(upTo(t, 10*time.Second), span{n: 4096})
			if stale {
				if !errors.Is(err, cacheclient.ErrStale) {
					t.Errorf("a mix is shown: %d bytes, %v", d.Len(), err)
				}
			} else if err == nil {
				err = v.check(0, d.Parts)
			}
			d.Release()
			if !stale && err != nil {
				t.Error(err)
			}
			<-fl.ended
			if kept := f.blocksOf(t); (len(kept) == 0) != stale {
				t.Errorf("%v are in the tier, of the block %d", kept, l.block(0))
			}
			if n := o.confirms.Load(); n != 1 {
				t.Errorf("one run was confirmed %d times", n)
			}
		})
	}
}

// TestOne404IsAskedAgain has the source say once that a file is not there, of its attributes or of its bytes: its
// reader learns nothing of it.
func TestOne404IsAskedAgain(t *testing.T) {
	noLeaks(t)
	v := version{path: "f", size: mib}
	once := func(n int) error {
		if n == 1 {
			return &ufs.StatusError{Code: 404, URL: "odd"}
		}
		return nil
	}
	for name, o := range map[string]*odd{
		"the attributes": {stat: once},
		"the bytes": {open: func(n int) (*ufs.Body, error) {
			return nil, once(n)
		}},
		"it changed, for a moment": {open: func(n int) (*ufs.Body, error) {
			if n == 1 {
				return nil, cacheclient.ErrStale
			}
			return nil, nil
		}},
	} {
		for where, change := range map[string]func(*Config){"here": nil, "elsewhere": nobody} {
			t.Run(name+", "+where, func(t *testing.T) {
				f := newFaked(t, one(t, v), nil, change)
				f.reads(t, v.path, o)
				o.stats.Store(0)
				o.opens.Store(0)
				mustRead(t, open(t, f.Client, v.path), v, 64<<10)
				if o.stats.Load()+o.opens.Load() < 2 {
					t.Error("the source was not asked: this tests nothing")
				}
			})
		}
	}
}

// TestAFileThatIsGoneIsStale has the source, and the masters with it, say that a file is not there any more.
func TestAFileThatIsGoneIsStale(t *testing.T) {
	noLeaks(t)
	v := version{path: "f", size: mib}
	f := newFaked(t, one(t, v), nil, nil)
	o := &odd{
		stat: func(int) error { return fs.ErrNotExist },
		open: func(int) (*ufs.Body, error) { return nil, fs.ErrNotExist },
	}
	f.reads(t, v.path, o)
	opened := open(t, f.Client, v.path)
	if err := os.Remove(filepath.Join(f.dir, v.path)); err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Read(upTo(t, 10*time.Second), 0, 4096); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("a file that is gone: %v", err)
	}
}

// TestOneBadFileTakesNothing has a server fail on one file: its source is not taken for one that does not answer.
func TestOneBadFileTakesNothing(t *testing.T) {
	noLeaks(t)
	v := version{path: "f", size: mib}
	f := newFaked(t, one(t, v), nil, func(c *Config) { c.Timeout, c.Deferred = pace.Limit(500*time.Millisecond), true })
	o := &odd{open: func(int) (*ufs.Body, error) { return nil, &ufs.StatusError{Code: 500, URL: "odd"} }}
	f.reads(t, v.path, o)
	opened := open(t, f.Client, v.path).(*file)
	// A client that is deferred comes to know its worker by itself.
	known := upTo(t, 10*time.Second)
	fl, err := f.fillOf(known, opened, 0, cacheclient.Identify(o.info))
	for errors.Is(err, errNoFill) && known.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		fl, err = f.fillOf(known, opened, 0, cacheclient.Identify(o.info))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fl.read(upTo(t, 10*time.Second), span{n: 4096}); err == nil {
		t.Fatal("the server fails, and its bytes are read")
	}
	if f.silent.was(f.sources.key(v.path)) {
		t.Error("a source that answers one file with 500 is taken for one that does not answer")
	}
	// The worker can read it.
	mustRead(t, opened, v, 64<<10)
}

// TestAWorkerThatStallsOnOneBlock brings nothing of one block and answers all else: it is not left alone, and not asked
// for that block again and again.
func TestAWorkerThatStallsOnOneBlock(t *testing.T) {
	pace.Long(t)
	noLeaks(t)
	bad, good := version{path: "bad", size: mib}, version{path: "good", size: mib}
	var stall atomic.Bool
	var stalled atomic.Int64
	f := newFaked(t, func(dir string) {
		bad.put(t, dir).age(t, dir)
		good.put(t, dir).age(t, dir)
	}, func(c *fakealluxio.Config) {
		c.Dice = func(call, path string) *rand.Rand {
			if call == "ReadBlock" && path == bad.path && stall.Load() {
				stalled.Add(1)
				return rand.New(stalling{})
			}
			return nil
		}
	}, func(c *Config) { c.NoShortCircuit = true })
	for _, v := range []version{bad, good} {
		if err := f.Warm(upTo(t, 30*time.Second), v.path, nil); err != nil {
			t.Fatal(err)
		}
	}
	stall.Store(true)
	workers, err := f.cluster.Live(t.Context())
	if err != nil || len(workers) != 1 {
		t.Fatal(workers, err)
	}
	mustRead(t, open(t, f.Client, bad.path), bad, 64<<10)
	eventually(t, 5*time.Second, "the worker is read again", func() bool { return !workers[0].Broken() })
	mustRead(t, open(t, f.Client, good.path), good, 64<<10)
	opened := open(t, f.Client, bad.path).(*file)
	eventually(t, 5*time.Second, "the block is known to stall", func() bool { return f.bad.was(opened.l.block(0)) })
	before := stalled.Load()
	for range 3 {
		mustRead(t, open(t, f.Client, bad.path), bad, 64<<10)
	}
	if n := stalled.Load() - before; n > 0 {
		t.Errorf("the worker is asked %d times more for what it does not bring", n)
	}
}

// stalling draws what has the fake answer late.
type stalling struct{}

// Uint64 is such that IntN(16) is 4.
func (stalling) Uint64() uint64 { return 4 }

// TestMisnamedBlocksAreReadOtherwise has the worker name files that are no blocks: nothing of them is opened, the
// blocks are read by gRPC, and stay.
func TestMisnamedBlocksAreReadOtherwise(t *testing.T) {
	pace.Long(t)
	noLeaks(t)
	v := version{path: "f", size: 3*mib + 5}
	f := newFaked(t, one(t, v), lying("OpenLocalBlock", v.path), nil)
	if err := f.Warm(upTo(t, 30*time.Second), v.path, nil); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		mustRead(t, open(t, f.Client, v.path), v, 256<<10)
	}
	if n := len(f.blocksOf(t)); n != 4 {
		t.Errorf("%d of 4 blocks are left", n)
	}
}

// TestHostileNumbersConcernTheirFile has a master tell of a file of 2^62 bytes beside others: it shows, has no
// attributes, and takes nothing from the others.
func TestHostileNumbersConcernTheirFile(t *testing.T) {
	noLeaks(t)
	good := version{path: "good", size: mib + 1}
	f := newFaked(t, func(dir string) {
		good.put(t, dir).age(t, dir)
		version{path: "huge", size: 1}.put(t, dir).age(t, dir)
	}, func(c *fakealluxio.Config) {
		c.Claims = func(path string) (int64, bool) { return 1 << 62, path == "huge" }
	}, nil)
	if _, err := f.Stat(t.Context(), "huge"); !errors.Is(err, cacheclient.ErrTooLarge) {
		t.Errorf("a file of 2^62 bytes: %v", err)
	}
	if f.Counters().SourceDown {
		t.Error("the masters are taken for down")
	}
	mustRead(t, open(t, f.Client, good.path), good, 64<<10)
	if _, err := f.Blocks(t.Context(), "huge"); !errors.Is(err, cacheclient.ErrTooLarge) {
		t.Errorf("the blocks of a file of 2^62 bytes: %v", err)
	}
	if err := f.Warm(t.Context(), "huge", nil); !errors.Is(err, cacheclient.ErrTooLarge) {
		t.Errorf("a file of 2^62 bytes is warmed: %v", err)
	}
	if _, err := f.Free(upTo(t, 30*time.Second), ""); err != nil {
		t.Errorf("what is cached cannot be dropped beside it: %v", err)
	}
}

// TestPlacesAreTheirOwnFiles has a master tell of blocks that are another file's: nothing is believed of those.
func TestPlacesAreTheirOwnFiles(t *testing.T) {
	noLeaks(t)
	v := version{path: "f", size: mib}
	f := newFaked(t, one(t, v), nil, nil)
	info, err := f.store.status(t.Context(), v.path)
	if err != nil {
		t.Fatal(err)
	}
	l, _ := layoutOf(infoOf(info, v.path))
	const others = 77 << 24
	id := int64(others)
	info.FileBlockInfos[0].BlockInfo.BlockId = &id
	f.places.forget(l.block(0))
	f.notePlaces(info)
	for _, id := range []int64{others, l.block(0)} {
		if _, ok := f.places.get(id); ok {
			t.Errorf("what was told of block %d is believed", id)
		}
	}
	f.places.told(errors.New("this block cannot be"))
	f.places.told(context.Canceled)
	if !f.places.mayAsk() {
		t.Error("what the masters say of one block has them not be asked of others")
	}
}

// TestAStreamAfterTheLastReader has a stream come when the last reader has left, and none is there whose place it could
// take.
func TestAStreamAfterTheLastReader(t *testing.T) {
	ended := false
	s := &streams{life: t.Context()}
	s.keep(&stream{changed: make(chan struct{}), cancel: func() { ended = true }})
	if !ended || len(s.list) > 0 {
		t.Errorf("it goes on: %v; %d are kept", !ended, len(s.list))
	}
}

// TestCloseWaitsForNothingThatHangs has something hang in a source when the client is closed.
func TestCloseWaitsForNothingThatHangs(t *testing.T) {
	f := newFaked(t, func(string) {}, nil, nil)
	if !f.begin() {
		t.Fatal("the client is closed")
	}
	defer f.work.Done()
	closed := make(chan error, 1)
	go func() { closed <- f.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(pace.Limit(30 * time.Second)):
		t.Error("Close waits for what hangs")
	}
}

// TestAStreamReservesNothingAfterItsEnd has a reader ask for more of a stream that has received all: no reader would
// give the memory back.
func TestAStreamReservesNothingAfterItsEnd(t *testing.T) {
	s := &stream{changed: make(chan struct{}), ahead: firstAhead, end: 64 * mib, head: mib}
	s.received(t.Context())
	s.mu.Lock()
	s.ask(8 * mib)
	s.mu.Unlock()
	if s.reserved != 0 || s.ahead != firstAhead {
		t.Errorf("%d bytes are reserved for a stream that brings no more", s.reserved)
		windows.Release(s.reserved)
	}
}

// TestWorkersOfThisMachineAreForgotten keeps nothing of workers that are not there any more.
func TestWorkersOfThisMachineAreForgotten(t *testing.T) {
	f := newFaked(t, one(t, version{path: "f", size: 1}), nil, nil)
	workers, err := f.cluster.Live(t.Context())
	if err != nil || len(workers) != 1 {
		t.Fatal(workers, err)
	}
	l := newLocalWorkers(nil, true)
	l.follow(workers)
	l.seen(workers[0], "/dev/shm")
	l.hide(workers[0])
	if l.is(workers[0]) || !l.isHere(workers[0]) {
		t.Error("a worker whose files are not to be seen is taken for one of another machine, or read")
	}
	l.follow(workers)
	l.follow(nil)
	if len(l.dirs) != 0 || len(l.unseen) != 0 || len(l.workers) != 0 {
		t.Errorf("%v, %v and %v are kept", l.dirs, l.unseen, l.workers)
	}
}

// TestMarksOfOthers has a server's ETag look like a version of Alluxio's: it would be read from the blocks of another
// file.
func TestMarksOfOthers(t *testing.T) {
	for _, v := range []string{
		"", "etag", "~", "~x", "alluxio:ffffff:100000", "~alluxio:ffffff:100000",
		"~~alluxio:ffffff:1", `"alluxio:ffffff:1"`,
	} {
		there := notOurs(v)
		if _, ok := layoutOf(cacheclient.Info{Version: there, Size: 5}); ok {
			t.Errorf("the ETag %q is taken for a version of Alluxio's", v)
		}
		if back := asTold(there); back != v {
			t.Errorf("%q comes back as %q", v, back)
		}
	}
	for _, v := range []string{"alluxio:ffffff:7fffffffffffffff", "alluxio:ffffff:1"} {
		if l, ok := layoutOf(cacheclient.Info{Version: v, Size: 1 << 50}); ok {
			t.Errorf("%q is taken for %d blocks", v, l.blocks())
		}
	}
}

// TestMountsThatCannotBe leaves out of the mount table what names no directory.
func TestMountsThatCannotBe(t *testing.T) {
	for _, at := range []string{"", "relative", "//", "/a//b", "/..", "/a/../b", "/a\x00", "/a/"} {
		if isPath(at) {
			t.Errorf("%q is taken for a path", at)
		}
	}
	for _, at := range []string{"/", "/a", "/a/b", "/caf\xe9/ "} {
		if !isPath(at) {
			t.Errorf("%q is not taken for a path", at)
		}
	}
}
