package alluxio

import (
	"slices"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/serve"
)

// byReader reads n bytes at off, checks them, and returns the reader that served them.
func byReader(t *testing.T, f cacheclient.File, v version, off, n int64) string {
	t.Helper()
	d, err := f.Read(t.Context(), off, int(n))
	if err != nil {
		t.Fatalf("%s at %d: %v", v.path, off, err)
	}
	defer d.Release()
	if err := v.check(off, d.Parts); err != nil {
		t.Fatal(err)
	}
	return d.Reader
}

// TestReadersOfAColdBlock reads a block that no worker has, and then the same block when it is cached, from each kind
// of machine: what serves it is the first of the readers that can.
func TestReadersOfAColdBlock(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	s := newCounted(t, c, 4*mib, serve.Options{})
	for name, of := range map[string]struct {
		change func(*Config)
		// cold serves the first read, and cached one of the same block when a worker has all of it.
		cold, cached string
	}{
		"a worker on this machine":     {nil, newFill{}.name(), localTier{}.name()},
		"workers elsewhere":            {nobody, directSource{}.name(), cachingWorker{}.name()},
		"a source that is not reached": {workersRead, underStoreWorker{}.name(), cachingWorker{}.name()},
	} {
		t.Run(name, func(t *testing.T) {
			// Of two blocks: that of a file with one is opened with the file.
			v := s.put(name+".bin", 8*mib)
			client := s.client(of.change)
			f := open(t, client, v.path)
			if by := byReader(t, f, v, 5*mib, 4096); by != of.cold {
				t.Errorf("the cold block was served by %q, not by %q", by, of.cold)
			}
			mustRead(t, f, v, 256<<10)
			awaitCached(t, client, v.path)
			// Another client has nothing open, and no stream.
			f = open(t, s.client(of.change), v.path)
			if by := byReader(t, f, v, 6*mib, 4096); by != of.cached {
				t.Errorf("the cached block was served by %q, not by %q", by, of.cached)
			}
		})
	}
}

// workersRead is how a client that reaches no source, and has no worker on its machine, is configured.
func workersRead(c *Config) {
	nobody(c)
	c.WorkersRead = true
}

// TestReadersOfWhatIsOpen reads what is open already: a block file, a stream that goes on, a fill under way.
func TestReadersOfWhatIsOpen(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	s := newCounted(t, c, 16*mib, serve.Options{BytesPerSecond: 20e6})
	v := s.put("open.bin", 16*mib)
	client := s.client(nil)
	f := open(t, client, v.path)
	byReader(t, f, v, 0, 4096)
	if by := byReader(t, f, v, 15*mib, 4096); by != (runningFill{}).name() {
		t.Errorf("the other end of a block on its way was served by %q", by)
	}
	mustRead(t, f, v, mib)
	awaitCached(t, client, v.path)
	f = open(t, client, v.path)
	byReader(t, f, v, 0, 4096)
	if by := byReader(t, f, v, 8*mib, 4096); by != (openBlock{}).name() {
		t.Errorf("a block that is open was served by %q", by)
	}
	f = open(t, s.client(nobody), v.path)
	byReader(t, f, v, 0, 256<<10)
	if by := byReader(t, f, v, 256<<10, 256<<10); by != (runningStream{}).name() {
		t.Errorf("the bytes that follow were served by %q", by)
	}
}

// TestAReaderThatFailedComesLast has a worker be left alone for a block that it has: the source is read first, and
// the worker when the source is not there.
func TestAReaderThatFailedComesLast(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	s := newCounted(t, c, 4*mib, serve.Options{})
	v := s.put("last.bin", 4*mib)
	first := s.client(nobody)
	cacheAt(t, first, v.path, workerOf(t, direct(t, c), c.Workers()[0]))
	client := s.client(func(c *Config) {
		nobody(c)
		c.Timeout = pace.Limit(2 * time.Second)
	})
	f := open(t, client, v.path)
	id := f.(*file).l.block(0)
	client.bad.first(id, time.Hour)
	if by := byReader(t, f, v, mib, 4096); by != (directSource{}).name() {
		t.Errorf("with a source the block was served by %q", by)
	}
	_ = s.server.Close()
	if by := byReader(t, f, v, 2*mib, 4096); !slices.Contains(lasts, by) {
		t.Errorf("without a source the block was served by %q", by)
	}
}

// lasts are the readers that need neither the source nor a worker that is well.
var lasts = []string{underStoreWorker{}.name(), brokenWorker{}.name()}
