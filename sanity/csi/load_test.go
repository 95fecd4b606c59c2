package csi_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/rootstat"
)

// soak is how long a test goes on: short, or what $MILLRACE_SOAK says for the long forms.
func soak(t *testing.T, short time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv("MILLRACE_SOAK")
	if text == "" {
		return short
	}
	long, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal("$MILLRACE_SOAK:", err)
	}
	return long
}

// stageAs stages a volume with attributes of its own.
func (n *node) stageAs(ctx context.Context, id string, attributes map[string]string) error {
	if err := os.MkdirAll(filepath.Dir(n.staging(id)), 0o750); err != nil {
		return err
	}
	_, err := n.client().NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: n.staging(id), VolumeCapability: mountCapability(), VolumeContext: attributes,
	})
	return err
}

// write makes a file of the source.
func (n *node) write(name string, content []byte) {
	n.t.Helper()
	path := filepath.Join(n.at("source"), name)
	n.must("making a directory", os.MkdirAll(filepath.Dir(path), 0o755))
	n.must("writing", os.WriteFile(path, content, 0o644))
	// As most data, it is old: what changed a moment ago is asked about at each open.
	old := time.Now().Add(-1000 * time.Hour)
	n.must("setting a time", os.Chtimes(path, old, old))
}

// random is n bytes that depend on the seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

const (
	smallFiles = 300
	smallDirs  = 20
)

func smallName(i int) string { return fmt.Sprintf("d%d/f%d", i%smallDirs, i) }

// load is what uses a node's volumes all the time: readers, a walker and an opener. None may see an error.
type load struct {
	n       *node
	ctx     context.Context
	stop    context.CancelFunc
	users   sync.WaitGroup
	longest atomic.Int64
	steps   sync.Map
	roots   *rootstat.Watcher
}

// fillSource makes the tree that the load uses.
func (n *node) fillSource() {
	n.write("big", random(1, 48<<20))
	for i := range smallFiles {
		n.write("tree/"+smallName(i), random(uint64(i), i*29))
	}
}

// startLoad has four readers, of a volume that is passed through and of one that is not, a walker and an opener
// use the volumes, which are staged, published and cached before.
func (n *node) startLoad() *load {
	n.t.Helper()
	n.fillSource()
	want := random(1, 48<<20)
	dirs := map[string]string{"passed": "true", "copied": "false"}
	for id, passthrough := range dirs {
		n.must("staging", n.stageAs(n.t.Context(), id, map[string]string{
			"source": n.url, "passthrough": passthrough,
			"quota": "256Mi",
		}))
		n.must("publishing", n.publish(n.t.Context(), id, "pod"))
		dir := n.target(id, "pod")
		got, err := os.ReadFile(filepath.Join(dir, "big"))
		if err != nil || !bytes.Equal(got, want) {
			n.t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	l := &load{n: n}
	l.roots = rootstat.Watch(n.t, n.staging("passed"), n.target("passed", "pod"), n.staging("copied"),
		n.target("copied", "pod"))
	l.ctx, l.stop = context.WithCancel(context.Background())
	for id := range dirs {
		for i := range 2 {
			l.use(fmt.Sprintf("reader %d of the volume %s", i, id),
				l.reader(filepath.Join(n.target(id, "pod"), "big"), want))
		}
	}
	tree := filepath.Join(n.target("copied", "pod"), "tree")
	l.use("walker", func(*rand.Rand) error { return walk(tree, smallFiles+smallDirs+1) })
	l.use("opener", func(r *rand.Rand) error {
		i := r.IntN(smallFiles)
		got, err := os.ReadFile(filepath.Join(n.target("passed", "pod"), "tree", smallName(i)))
		if err == nil && !bytes.Equal(got, random(uint64(i), i*29)) {
			err = fmt.Errorf("%s: %d bytes that are not the source's", smallName(i), len(got))
		}
		return err
	})
	return l
}

// use repeats a step until the load ends, and keeps the longest time that one took.
func (l *load) use(name string, step func(*rand.Rand) error) {
	l.users.Go(func() {
		r, steps := rand.New(rand.NewPCG(7, uint64(len(name)))), 0
		for ; l.ctx.Err() == nil; steps++ {
			begin := time.Now()
			if err := step(r); err != nil {
				l.n.t.Errorf("%s: %v", name, err)
				break
			}
			// A walk asks for many things one after the other.
			if took := int64(time.Since(begin)); name != "walker" && took > l.longest.Load() {
				l.longest.Store(took)
			}
		}
		l.steps.Store(name, steps)
	})
}

// reader reads a megabyte at a random place through one descriptor that stays open, and not from the page cache.
func (l *load) reader(path string, want []byte) func(*rand.Rand) error {
	f, err := os.Open(path)
	l.n.must("opening", err)
	l.n.t.Cleanup(func() { _ = f.Close() })
	return func(r *rand.Rand) error {
		buf := make([]byte, 1<<20)
		off := r.Int64N(int64(len(want) - len(buf)))
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		if _, err := f.ReadAt(buf, off); err != nil {
			return fmt.Errorf("at %d: %w", off, err)
		}
		if !bytes.Equal(buf, want[off:off+int64(len(buf))]) {
			return fmt.Errorf("at %d: bytes that are not the source's", off)
		}
		return nil
	}
}

// end stops the load, says what it did, and takes the volumes down.
func (l *load) end(what string) {
	l.roots.End()
	l.stop()
	l.users.Wait()
	l.steps.Range(func(name, steps any) bool {
		l.n.t.Logf("%s: %d steps", name, steps)
		if steps == 0 {
			l.n.t.Errorf("%s did nothing", name)
		}
		return true
	})
	l.n.t.Logf("%s, longest stall of a reader or the opener %s", what,
		time.Duration(l.longest.Load()).Round(time.Millisecond))
}

// walk lists a tree with attributes and demands a number of entries.
func walk(root string, want int) error {
	seen := 0
	err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		_, err = e.Info()
		return err
	})
	if err == nil && seen != want {
		err = fmt.Errorf("%d entries, not %d", seen, want)
	}
	return err
}

// answers waits until what serves the volumes has answered a question that the kernel cannot.
func (n *node) answers(volumes ...string) {
	n.t.Helper()
	for _, id := range volumes {
		var st unix.Statx_t
		n.must("the root of a volume", unix.Statx(unix.AT_FDCWD, n.target(id, "pod"), unix.AT_STATX_FORCE_SYNC,
			unix.STATX_BASIC_STATS, &st))
	}
}

// TestSoakAgentKilled: the agent is killed with -9 when it has served for 250 ms. No reader sees an error or a wrong
// byte, and in the long form none waits longer than half a second.
func TestSoakAgentKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	l := n.startLoad()
	length := soak(t, 2*time.Second)
	kills := 0
	for until := time.Now().Add(length); time.Now().Before(until) && !t.Failed(); kills++ {
		time.Sleep(250 * time.Millisecond)
		n.serving.Kill()
		n.startAgent()
		// What waits at the second death of a process that has served no request is taken for its cause.
		n.answers("passed", "copied")
	}
	l.end(fmt.Sprintf("%d kills in %s", kills, length))
	most := 10 * time.Second
	if soak(t, 0) > 0 {
		most = 500 * time.Millisecond
	}
	pace.Within(t, "the longest wait of a reader", time.Duration(l.longest.Load()), most)
	n.takeDown("passed", "pod")
	n.takeDown("copied", "pod")
}

// TestSoakUpgrade: the agent is stopped as a rolling update does, and another build takes its place, and back.
func TestSoakUpgrade(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	l := n.startLoad()
	rounds := 2
	if soak(t, 0) > 0 {
		rounds = 40
	}
	for round := range rounds {
		time.Sleep(200 * time.Millisecond)
		n.must("stopping the agent", unix.Kill(n.serving.Pid(), unix.SIGTERM))
		select {
		case <-n.serving.Ended():
		case <-time.After(patience()):
			t.Fatal("the agent does not end")
		}
		n.startAgentOf([]string{otherBin, bin}[round%2])
	}
	l.end(fmt.Sprintf("%d upgrades", rounds))
	n.takeDown("passed", "pod")
	n.takeDown("copied", "pod")
}
