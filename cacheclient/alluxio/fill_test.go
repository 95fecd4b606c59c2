package alluxio

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/serve"
)

// counted is a directory that workers mount and this process reads through a web server that counts.
type counted struct {
	t      *testing.T
	c      *cluster.Cluster
	dir    string
	mount  string
	server *serve.Server
	addr   string
	last   serve.Stats
}

func newCounted(t *testing.T, c *cluster.Cluster, blockSize int64, opts serve.Options) *counted {
	t.Helper()
	s := &counted{t: t, c: c, dir: t.TempDir()}
	s.mount = mountDir(t, c, s.dir, blockSize)
	var err error
	if s.server, err = serve.New(s.dir, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.server.Close() })
	if s.addr, err = s.server.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return s
}

// client reads the source through the web server.
func (s *counted) client(change func(*Config)) *Client {
	s.t.Helper()
	cfg := config(s.t, s.c, s.mount)
	cfg.Sources = []Source{{URL: "http://" + s.addr + "/"}}
	if change != nil {
		change(&cfg)
	}
	return newClient(s.t, cfg)
}

// put makes a file whose time is a whole second, as web servers tell it.
func (s *counted) put(name string, size int64) version {
	s.t.Helper()
	return version{path: name, size: size}.put(s.t, s.dir).age(s.t, s.dir)
}

// cost is how often the server has sent a file of that size since the last call.
func (s *counted) cost(size int64) float64 {
	now := s.server.Stats()
	defer func() { s.last = now }()
	return float64(now.Sub(s.last).BodyBytes) / float64(size)
}

// awaitCached waits until the masters know all of a file to be cached.
func awaitCached(t *testing.T, c *Client, path string) {
	t.Helper()
	var told int32
	eventually(t, 30*time.Second, path+" is cached", func() bool {
		var err error
		told, err = c.CachedPercentage(t.Context(), path)
		return err == nil && told == 100
	})
}

// tiers checks what the workers' tiers have of a file: whole blocks with its bytes, or nothing. It returns how many
// blocks.
func tiers(t *testing.T, c *cluster.Cluster, l layout, v version) int {
	t.Helper()
	n := 0
	for _, w := range c.Workers() {
		for k := range l.blocks() {
			got, err := os.ReadFile(blockPath(w, l.block(k)))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			n++
			if err != nil || int64(len(got)) != l.length(k) {
				t.Errorf("block %d of %s has %d bytes at %s and should have %d: %v", k, v.path, len(got), w.Name,
					l.length(k), err)
			} else if err := v.check(int64(k)*l.blockSize, [][]byte{got}); err != nil {
				t.Errorf("block %d at %s: %v", k, w.Name, err)
			}
		}
	}
	return n
}

// nobody is how a client with no worker on its machine is configured.
func nobody(c *Config) { c.LocalHosts = []string{"another machine"} }

// TestAColdFileCostsTheSourceOneRead reads files of many blocks, by one reader and by four at once, and finds them
// cached after that.
func TestAColdFileCostsTheSourceOneRead(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	s := newCounted(t, c, 4*mib, serve.Options{BytesPerSecond: 100e6})
	for name, change := range map[string]func(*Config){
		"written into the tier": nil,
		"given to a worker":     nobody,
		"by gRPC alone":         func(c *Config) { c.NoShortCircuit = true },
	} {
		t.Run(name, func(t *testing.T) {
			client := s.client(change)
			for _, readers := range []int{1, 4} {
				v := s.put(fmt.Sprintf("%s %d.bin", name, readers), 26*mib+123)
				f := open(t, client, v.path)
				s.cost(1)
				var all sync.WaitGroup
				var failed errorsOf
				for i := range readers {
					all.Go(func() {
						time.Sleep(time.Duration(i) * 7 * time.Millisecond)
						if _, err := readAll(t.Context(), f, v, 256<<10, nil); err != nil {
							failed.add(err)
						}
					})
				}
				all.Wait()
				failed.report(t)
				awaitCached(t, client, v.path)
				cost := s.cost(v.size)
				t.Logf("%d readers: %.3f times the file from the source", readers, cost)
				if cost > 1.02 {
					t.Errorf("%d readers: the source sent %.3f times the file", readers, cost)
				}
				// A worker that is slow to say that it has a block may get it beside another: one at most, of cached bytes.
				if n, blocks := tiers(t, c, f.(*file).l, v), f.(*file).l.blocks(); n < blocks || n > blocks+1 {
					t.Errorf("%d blocks are in tiers, and the file has %d", n, blocks)
				}
				mustRead(t, open(t, client, v.path), v, mib)
				if again := s.cost(v.size); again != 0 {
					t.Errorf("read again, the source sent %.3f times the file", again)
				}
			}
		})
	}
}

// TestAColdFileGoesToThisMachine reads a file whose blocks would belong to two workers by their ranks: all of them go
// to the one of this machine, which has room, and the source sends it once.
func TestAColdFileGoesToThisMachine(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	here := c.Workers()[0]
	s := newCounted(t, c, 4*mib, serve.Options{BytesPerSecond: 100e6})
	client := s.client(func(c *Config) { c.LocalHosts = []string{here.Host} })
	eventually(t, 10*time.Second, "the worker's room is known", func() bool {
		return hasRoom(client.Capacity(), client.local.all()[0].Addr(), 50*mib)
	})
	v := s.put("whole.bin", 50*mib+123)
	f := open(t, client, v.path)
	s.cost(1)
	mustRead(t, f, v, mib)
	awaitCached(t, client, v.path)
	l := f.(*file).l
	for k := range l.blocks() {
		if info, err := os.Stat(blockPath(here, l.block(k))); err != nil || info.Size() != l.length(k) {
			t.Errorf("block %d is not here: %v", k, err)
		}
	}
	if n := tiers(t, c, l, v); n != l.blocks() {
		t.Errorf("%d blocks are in tiers, and the file has %d", n, l.blocks())
	}
	if cost := s.cost(v.size); cost > 1.02 {
		t.Errorf("the source sent %.3f times the file", cost)
	}
}

// TestWorkersReadTheSource has this process read no source.
func TestWorkersReadTheSource(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	s := newCounted(t, c, 4*mib, serve.Options{})
	client := s.client(func(c *Config) { c.WorkersRead, c.NoShortCircuit = true, true })
	v := s.put("sequential.bin", 13*mib+5)
	f := open(t, client, v.path)
	mustRead(t, f, v, 512<<10)
	awaitCached(t, client, v.path)
	tiers(t, c, f.(*file).l, v)
	// Readers at random places warm what they touch.
	r := s.put("random.bin", 13*mib+5)
	g := open(t, client, r.path)
	for k := range g.(*file).l.blocks() {
		if err := readPart(t.Context(), g, r, int64(k)*4*mib+rand.Int64N(mib), 4096); err != nil {
			t.Fatal(err)
		}
	}
	awaitCached(t, client, r.path)
	tiers(t, c, g.(*file).l, r)
	if s.cost(1) != 0 {
		t.Error("this process asked the source")
	}
}

// TestRandomReadersWarmWhatTheyTouch reads 4 KiB here and there.
func TestRandomReadersWarmWhatTheyTouch(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	s := newCounted(t, c, 2*mib, serve.Options{})
	for name, change := range map[string]func(*Config){"here": nil, "elsewhere": nobody} {
		t.Run(name, func(t *testing.T) {
			client := s.client(change)
			v := s.put(name+".bin", 15*mib+7)
			f := open(t, client, v.path)
			s.cost(1)
			var all sync.WaitGroup
			var failed errorsOf
			for range 2 {
				all.Go(func() {
					for range 60 {
						if err := readPart(t.Context(), f, v, rand.Int64N(v.size), 4096); err != nil {
							failed.add(err)
						}
					}
				})
			}
			for k := range f.(*file).l.blocks() {
				if err := readPart(t.Context(), f, v, int64(k)*2*mib+rand.Int64N(mib), 4096); err != nil {
					failed.add(err)
				}
			}
			all.Wait()
			failed.report(t)
			awaitCached(t, client, v.path)
			tiers(t, c, f.(*file).l, v)
			cost := s.cost(v.size)
			t.Logf("%.3f times the file from the source: %+v, %+v", cost, client.Counters(), s.server.Stats())
			// Here all goes through the fills. What is given away is read in order, beside what readers ask for at random
			// places.
			if limit := map[string]float64{"here": 1.02, "elsewhere": 2}[name]; cost > limit {
				t.Errorf("the source sent %.3f times the file", cost)
			}
		})
	}
}

// TestASourceThatFailsOnTheWay stops the server in the middle of a read, for a moment and for good.
func TestASourceThatFailsOnTheWay(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	for name, change := range map[string]func(*Config){"here": nil, "elsewhere": nobody} {
		t.Run(name, func(t *testing.T) {
			s := newCounted(t, c, 4*mib, serve.Options{BytesPerSecond: 40e6})
			client := s.client(func(cfg *Config) {
				cfg.Timeout = 4 * time.Second
				if change != nil {
					change(cfg)
				}
			})
			v := s.put("moment.bin", 18*mib)
			f := open(t, client, v.path)
			var once sync.Once
			var back sync.WaitGroup
			if _, err := readAll(t.Context(), f, v, 512<<10, func(off int64) {
				if off >= v.size/3 {
					once.Do(func() {
						_ = s.server.Stop()
						back.Go(func() {
							time.Sleep(300 * time.Millisecond)
							if _, err := s.server.Start(s.addr); err != nil {
								t.Error(err)
							}
						})
					})
				}
			}); err != nil {
				t.Errorf("while the source was away for a moment: %v", err)
			}
			back.Wait()
			tiers(t, c, f.(*file).l, v)

			// For good: workers reach the source still.
			w := s.put("good.bin", 18*mib)
			g := open(t, client, w.path)
			var stop sync.Once
			if _, err := readAll(t.Context(), g, w, 512<<10, func(off int64) {
				if off >= w.size/3 {
					stop.Do(func() { _ = s.server.Stop() })
				}
			}); err != nil {
				t.Errorf("after the source went away: %v", err)
			}
			tiers(t, c, g.(*file).l, w)
		})
	}
}

// TestASourceThatChangesOnTheWay replaces the file in the middle of a read.
func TestASourceThatChangesOnTheWay(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	for name, change := range map[string]func(*Config){
		"here": nil, "elsewhere": nobody,
		"workers read": func(c *Config) { c.NoShortCircuit, c.WorkersRead = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newCounted(t, c, 4*mib, serve.Options{BytesPerSecond: 40e6})
			client := s.client(change)
			v := s.put("changing.bin", 26*mib)
			f := open(t, client, v.path)
			next := version{path: v.path, number: 1, size: v.size}
			var once sync.Once
			_, err := readAll(t.Context(), f, v, 256<<10, func(off int64) {
				if off >= v.size/3 {
					once.Do(func() { next.put(t, s.dir) })
				}
			})
			if err != nil && !errors.Is(err, cacheclient.ErrStale) {
				t.Errorf("the old version: %v", err)
			}
			t.Logf("the reader of the old version got: %v", err)
			old := f.(*file).l
			f.Close()
			g := open(t, client, v.path)
			if g.Info().ID == f.Info().ID && err != nil {
				t.Error("the next open has the old version")
			}
			if g.Info().ID != f.Info().ID {
				mustRead(t, g, next, mib)
			}
			tiers(t, c, old, v)
		})
	}
}

// TestWhatIsNotCompleteIsNotCached gives up on a slow source: readers by their contexts, and then the client.
func TestWhatIsNotCompleteIsNotCached(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	for name, change := range map[string]func(*Config){"here": nil, "elsewhere": nobody} {
		t.Run(name, func(t *testing.T) {
			s := newCounted(t, c, 16*mib, serve.Options{BytesPerSecond: 3e6})
			client := s.client(change)
			v := s.put("slow.bin", 40*mib)
			f := open(t, client, v.path)
			if err := readPart(t.Context(), f, v, 0, 64<<10); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			begin := time.Now()
			if d, err := f.Read(ctx, 10*mib, mib); err == nil {
				d.Release()
				t.Error("a megabyte came at once")
			}
			if took := time.Since(begin); took > pace.Limit(2*time.Second) {
				t.Errorf("a read that was given up took %v", took)
			}
			// A reader who waits when the client closes.
			waiting := make(chan error, 1)
			go func() {
				d, err := f.Read(t.Context(), 12*mib, mib)
				d.Release()
				waiting <- err
			}()
			time.Sleep(100 * time.Millisecond)
			begin = time.Now()
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > pace.Limit(4*time.Second) {
				t.Errorf("closing took %v", took)
			}
			select {
			case err := <-waiting:
				if err == nil {
					t.Error("the reader got what had not come")
				}
			case <-time.After(pace.Limit(5 * time.Second)):
				t.Error("the reader waits after the client was closed")
			}
			if err := readPart(t.Context(), f, v, 0, 10); !errors.Is(err, cacheclient.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
			f.Close()
			if n := tiers(t, c, f.(*file).l, v); n != 0 {
				t.Errorf("%d blocks of a file that did not come are cached", n)
			}
			left := func() (names []string) {
				for _, w := range c.Workers() {
					for k := range f.(*file).l.blocks() {
						found, _ := filepath.Glob(filepath.Join(w.TierDir, "alluxioworker", ".tmp_blocks", "*",
							fmt.Sprintf("*-%d", f.(*file).l.block(k))))
						names = append(names, found...)
					}
				}
				return names
			}
			eventually(t, 20*time.Second, "workers drop what did not come", func() bool { return len(left()) == 0 })
		})
	}
}

// TestLoansOutliveEverything keeps what was lent while the file is closed, the block freed and the client closed.
func TestLoansOutliveEverything(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	v := version{path: "lent.bin", size: 3 * mib}.put(t, dir).age(t, dir)
	path := mountDir(t, c, dir, mib)
	for name, change := range map[string]func(*Config){
		"cold": func(*Config) {}, "local": func(*Config) {}, "remote": func(c *Config) { c.NoShortCircuit = true },
		"direct": nobody,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, c, path)
			change(&cfg)
			client := newClient(t, cfg)
			if _, err := client.Free(t.Context(), v.path); err != nil {
				t.Fatal(err)
			}
			if name == "local" || name == "remote" {
				if err := client.Warm(t.Context(), v.path, nil); err != nil {
					t.Fatal(err)
				}
			}
			f := open(t, client, v.path)
			var lent []cacheclient.Data
			for off := int64(0); off < v.size; off += 700_000 {
				d, err := f.Read(t.Context(), off, 700_000)
				if err != nil {
					t.Fatal(err)
				}
				lent = append(lent, d)
			}
			_ = f.Close()
			if _, err := client.Free(t.Context(), v.path); err != nil {
				t.Fatal(err)
			}
			if err := client.Close(); err != nil {
				t.Fatal(err)
			}
			for i, d := range lent {
				if err := v.check(int64(i)*700_000, d.Parts); err != nil {
					t.Errorf("a loan from %s after everything was closed: %v", d.Origin, err)
				}
				d.Release()
			}
		})
	}
}
