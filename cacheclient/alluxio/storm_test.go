package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/cluster"
)

// small is a cluster whose tiers are smaller than the data, and whose masters delete what expires at once, also what
// clients have loaded with a time to live.
var small = cluster.Shared{Config: cluster.Config{
	TierQuota: 20 * mib,
	MasterProperties: map[string]string{
		"alluxio.master.metadata.sync.ignore.ttl": "false",
		"alluxio.master.ttl.checker.interval":     "2s",
	},
	WorkerProperties: map[string]string{"alluxio.worker.tieredstore.block.locks": "64"},
}}

// published is a file that is replaced again and again. Its versions are told apart by their times, which are four to a
// second, so that some of them are whole seconds; half of the files keep their size.
type published struct {
	path     string
	sameSize bool

	// mu guards latest, the version that is there, and is held while it is replaced.
	mu     sync.Mutex
	latest int
}

// published0 is the time of all first versions.
var published0 = time.Now().Add(-time.Hour).Truncate(time.Second)

func (p *published) version(number int) version {
	size := int64(1500<<10 + len(p.path)*1000)
	if !p.sameSize {
		size += int64(number%7) * 70001
	}
	return version{path: p.path, number: number, size: size}
}

// at is the time of a version.
func (p *published) at(number int) time.Time {
	return published0.Add(time.Duration(number) * 250 * time.Millisecond)
}

// which is the number of the version that has this time.
func (p *published) which(at time.Time) int {
	return int(at.Sub(published0) / (250 * time.Millisecond))
}

// publish writes the next version.
func (p *published) publish(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.version(p.latest + 1)
	staged := version{path: v.path + ".staged", number: v.number, size: v.size}
	name := filepath.Join(dir, staged.path)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(v.bytes(0, v.size))
	err = errors.Join(err, f.Close(), os.Chtimes(name, p.at(v.number), p.at(v.number)),
		os.Rename(name, filepath.Join(dir, v.path)))
	p.latest++
	return err
}

func (p *published) newest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest
}

// storm is what goes on at the same time.
type storm struct {
	t       *testing.T
	c       *cluster.Cluster
	dir     string
	files   []*published
	clients []*Client
	failed  errorsOf
	// reads were right, refused are those of versions that are gone, published and harmed what was done to them.
	reads, refused, published, harmed atomic.Int64
}

// read opens a file as the kernel does, and reads and checks parts of it.
func (s *storm) read(ctx context.Context, c *Client, p *published) error {
	before := p.newest()
	f, err := tryOpen(ctx, c, p.path)
	if err != nil {
		return s.refusedFor(ctx, c, p, before, err)
	}
	defer f.Close()
	number := p.which(f.Info().ModTime)
	v := p.version(number)
	if f.Info().Size != v.size {
		return fmt.Errorf("%s, version %d, has %d bytes and should have %d", p.path, number, f.Info().Size, v.size)
	}
	if local, ok := f.Local(); ok {
		got := make([]byte, v.size)
		if _, err := local.ReadAt(got, 0); err != nil {
			return fmt.Errorf("%s: the local file: %w", p.path, err)
		}
		if err := v.check(0, [][]byte{got}); err != nil {
			return fmt.Errorf("the local file: %w", err)
		}
	}
	for range 1 + rand.IntN(12) {
		n := int64(4096)
		if rand.IntN(3) == 0 {
			n = 1 + rand.Int64N(600<<10)
		}
		err := readPart(ctx, f, v, rand.Int64N(v.size), n)
		if err != nil {
			return s.refusedFor(ctx, c, p, number, err)
		}
		s.reads.Add(1)
	}
	return nil
}

// refusedFor passes over the error of one who has, or looked for, a version that was replaced. Who depends on workers
// and masters has to do without while there are none.
func (s *storm) refusedFor(ctx context.Context, c *Client, p *published, number int, err error) error {
	away := errors.Is(err, cacheclient.ErrUnavailable)
	gone := (errors.Is(err, cacheclient.ErrStale) || away) && number != p.newest()
	over := false
	select {
	case <-ctx.Done():
		over = true
	default:
	}
	if passed := over || gone || away && c.cfg.WorkersRead; !passed {
		return fmt.Errorf("version %d of %d: %w", number, p.newest(), err)
	}
	s.refused.Add(1)
	return nil
}

// often does something again and again until the context ends.
func (s *storm) often(ctx context.Context, wg *sync.WaitGroup, pause time.Duration, f func() error) {
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := f(); err != nil && ctx.Err() == nil {
				s.failed.add(err)
			}
			sleep(ctx, pause/2+rand.N(pause+1))
		}
	})
}

// wipe removes the files of a worker's tier, complete ones and others.
func (s *storm) wipe() error {
	w := s.c.Workers()[rand.IntN(len(s.c.Workers()))]
	return filepath.WalkDir(w.TierDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_ = os.Remove(path)
		}
		return nil
	})
}

// failOver kills the leader and starts it again when there is another.
func (s *storm) failOver(ctx context.Context) error {
	leader, err := s.c.Leader(ctx)
	if err != nil {
		return err
	}
	if err := leader.Kill(); err != nil {
		return err
	}
	_, err = s.c.Leader(ctx)
	return errors.Join(err, leader.Start())
}

// hurt kills or pauses a worker for a moment.
func (s *storm) hurt(ctx context.Context) error {
	w := s.c.Workers()[rand.IntN(len(s.c.Workers()))]
	if rand.IntN(2) == 0 {
		if err := w.Pause(); err != nil {
			return err
		}
		sleep(ctx, 1500*time.Millisecond)
		return w.Resume()
	}
	if err := w.Kill(); err != nil {
		return err
	}
	sleep(ctx, 500*time.Millisecond)
	return w.Start()
}

// TestNeverAWrongByte reads at random while workers evict, blocks are freed, files are replaced at the source, masters
// fail over, tiers are wiped and workers die. Each byte is checked against the version that was opened. In the end all
// files are there as they were published, and none has a time to live.
func TestNeverAWrongByte(t *testing.T) {
	noLeaks(t)
	s := &storm{t: t, c: small.Get(t)}
	// The root under store is mounted for writing: what Alluxio deletes goes there too.
	s.dir = filepath.Join(s.c.UFS(), "storm")
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 32 {
		p := &published{path: fmt.Sprintf("%02d%s", i, strings.Repeat("x", i%5)), sameSize: i%2 == 0}
		if err := p.publish(s.dir); err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, p)
	}
	for i, change := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.NoShortCircuit = true },
		func(c *Config) { c.LocalHosts, c.PassiveCache = []string{s.c.Workers()[0].Host}, true },
		func(c *Config) { c.TTL, c.NameTTL = 2*time.Second, 2*time.Second },
		func(c *Config) { c.NoShortCircuit, c.WorkersRead = true, true },
	} {
		cfg := config(t, s.c, "/storm")
		cfg.TTL, cfg.NameTTL = -1, -1
		if change(&cfg); i > 0 {
			cfg.Log = nil
		}
		s.clients = append(s.clients, newClient(t, cfg))
	}
	s.rage()
	t.Logf("%d right reads, %d of versions that were gone, %d versions published, %d harms done",
		s.reads.Load(), s.refused.Load(), s.published.Load(), s.harmed.Load())
	for i, c := range s.clients {
		t.Logf("client %d: %+v", i, c.Counters())
	}
	if s.reads.Load() < 20 {
		t.Errorf("only %d reads were made", s.reads.Load())
	}
	s.failed.report(t)
	small.Get(t)
	s.inspect()
}

// rage has it all go on for a while.
func (s *storm) rage() {
	ctx, cancel := context.WithTimeout(s.t.Context(), soak(s.t, 12*time.Second))
	defer cancel()
	var readers, harm sync.WaitGroup
	// What a worker reads from its under store when the version has gone is removed a moment later; until then nobody else
	// may read it. So the client whose workers do has files of its own, and one reader.
	last := len(s.clients) - 1
	ours, theirs := s.files[:24], s.files[24:]
	for _, c := range s.clients[:last] {
		for range 3 {
			s.often(ctx, &readers, 0, func() error { return s.read(ctx, c, ours[rand.IntN(len(ours))]) })
		}
	}
	s.often(ctx, &readers, 0, func() error { return s.read(ctx, s.clients[last], theirs[rand.IntN(len(theirs))]) })
	all := func(f func() error) func() error {
		return func() error {
			s.harmed.Add(1)
			return f()
		}
	}
	s.often(ctx, &harm, 100*time.Millisecond, func() error {
		s.published.Add(1)
		return s.files[rand.IntN(len(s.files))].publish(s.dir)
	})
	s.often(ctx, &harm, 300*time.Millisecond, all(func() error {
		// It may fail while no master leads.
		_, _ = s.clients[rand.IntN(len(s.clients))].Free(ctx, s.files[rand.IntN(len(s.files))].path)
		return nil
	}))
	s.often(ctx, &harm, 2*time.Second, all(s.wipe))
	harm.Go(func() {
		for sleep(ctx, 2*time.Second) {
			s.harmed.Add(1)
			if err := s.failOver(ctx); err != nil && ctx.Err() == nil {
				s.failed.add(err)
			}
			if sleep(ctx, time.Second) {
				s.harmed.Add(1)
				if err := s.hurt(ctx); err != nil && ctx.Err() == nil {
					s.failed.add(err)
				}
			}
		}
	})
	harm.Wait()
	readers.Wait()
}

// inspect looks at the source, and at what the masters keep.
func (s *storm) inspect() {
	conn := direct(s.t, s.c)
	for _, p := range s.files {
		v := p.version(p.newest())
		got, err := os.ReadFile(filepath.Join(s.dir, p.path))
		if err != nil || int64(len(got)) != v.size {
			s.t.Errorf("%s at the source: %d bytes, %v", p.path, len(got), err)
			continue
		}
		if err := v.check(0, [][]byte{got}); err != nil {
			s.t.Errorf("at the source: %v", err)
		}
		info, err := conn.Status(s.t.Context(), "/storm/"+p.path, -1)
		if err != nil || info.GetTtl() != -1 {
			s.t.Errorf("%s has the time to live %d: %v", p.path, info.GetTtl(), err)
		}
		mustRead(s.t, open(s.t, s.clients[0], p.path), v, mib)
	}
	dir, err := conn.Status(s.t.Context(), "/storm", -1)
	if err != nil || dir.GetTtl() != -1 {
		s.t.Errorf("the directory has the time to live %d: %v", dir.GetTtl(), err)
	}
}

// TestWhatIsReadDoesNotExpire has masters that check every two seconds, and delete from the source, what has a time to
// live.
func TestWhatIsReadDoesNotExpire(t *testing.T) {
	c := small.Get(t)
	dir := filepath.Join(c.UFS(), "lasting")
	read := version{path: "sub/read.bin", size: 100_000}.put(t, dir)
	listed := version{path: "sub/listed.bin", size: 100_000}.put(t, dir)
	expiring := version{path: "expiring.bin", size: 10}.put(t, dir)
	client := newClient(t, config(t, c, "/lasting"))
	if _, err := client.List(t.Context(), "sub", cacheclient.Cursor{}, 10, true); err != nil {
		t.Fatal(err)
	}
	mustRead(t, open(t, client, read.path), read, mib)
	if err := client.Warm(t.Context(), listed.path, nil); err != nil {
		t.Fatal(err)
	}
	if err := client.Pin(t.Context(), read.path, true); err != nil {
		t.Fatal(err)
	}
	mustRead(t, open(t, client, expiring.path), expiring, mib)
	if out, err := c.Shell(t.Context(), "setTtl", "--action", "delete", "/lasting/"+expiring.path, "1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, 30*time.Second, "a file with a time to live is deleted", func() bool {
		_, err := os.Stat(filepath.Join(dir, expiring.path))
		return errors.Is(err, fs.ErrNotExist)
	})
	// Another check after that.
	time.Sleep(2500 * time.Millisecond)
	for _, v := range []version{read, listed} {
		got, err := os.ReadFile(filepath.Join(dir, v.path))
		if err != nil || v.check(0, [][]byte{got}) != nil {
			t.Errorf("%s at the source: %d bytes, %v", v.path, len(got), err)
		}
	}
}
