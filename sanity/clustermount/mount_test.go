// Package clustermount_test mounts a real Alluxio cluster through the kernel, in this process, so that what the
// whole of it holds can be counted: descriptors, memory, and locks at the workers.
package clustermount_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/session"
)

// locks is how many blocks a worker can have locked at once: a client that keeps them would hang here soon, and with
// Alluxio's usual 1,000 some day.
const locks = 64

// mount shows the cluster's under store, and undoes all of it with the test.
func mount(t *testing.T, c *cluster.Cluster, change func(*alluxio.Config)) (*alluxio.Client, *fuse.Session, string) {
	t.Helper()
	if why := session.CanMount(); why != "" {
		t.Skip(why)
	}
	addr, err := rpc.ParseAddress(c.Address())
	if err != nil {
		t.Fatal(err)
	}
	cfg := alluxio.Config{Address: addr}
	if change != nil {
		change(&cfg)
	}
	client, err := alluxio.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	dir, err := os.MkdirTemp("", "millrace-clustermount-") //nolint:usetesting // it is unmounted before it can be removed
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	s, err := fuse.Mount(t.Context(), fuse.Config{Client: client, Source: addr.String(), Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(true); err != nil {
			t.Error(err)
		}
		if err := s.Wait(); err != nil {
			t.Error(err)
		}
	})
	return client, s, dir
}

// content is what the i-th file has.
func content(i int) []byte {
	seed := sha256.Sum256(fmt.Append(nil, i))
	return bytes.Repeat(seed[:], 64+i%200)
}

func name(i int) string { return fmt.Sprintf("%02d/%05d", i%100, i) }

// blockFiles counts the descriptors of this process that are files of workers' tiers.
func blockFiles(t *testing.T) (blocks, all int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(to, "/alluxioworker/") {
			blocks++
		}
	}
	return blocks, len(entries)
}

// heapBytes is the memory in use after a collection.
func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestManyFiles opens and reads files at random, cold and warm, and counts what is held meanwhile and after.
func TestManyFiles(t *testing.T) {
	c := cluster.ForTest(t, cluster.Config{
		Masters: 1, Workers: 1, TierQuota: 256 << 20,
		WorkerProperties: map[string]string{"alluxio.worker.tieredstore.block.locks": strconv.Itoa(locks)},
	})
	const files = 3_000
	for i := range files {
		path := filepath.Join(c.UFS(), name(i))
		if i < 100 {
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, content(i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, s, dir := mount(t, c, nil)
	_, fdsBefore := blockFiles(t)
	heapBefore := heapBytes()
	var most atomic.Int64
	var readers sync.WaitGroup
	order := rand.Perm(files)
	for r := range 8 {
		readers.Go(func() {
			for i := r; i < files; i += 8 {
				if err := check(dir, order[i]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	watch, end := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for watch.Err() == nil {
			if n, _ := blockFiles(t); int64(n) > most.Load() {
				most.Store(int64(n))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	begin := time.Now()
	readers.Wait()
	cold := time.Since(begin)
	begin = time.Now()
	for range files / 20 {
		if err := check(dir, rand.IntN(files)); err != nil {
			t.Fatal(err)
		}
	}
	end()
	<-watched
	blocks, fds := blockFiles(t)
	heap := heapBytes()
	stats := s.Stats()
	t.Logf("%d files read cold in %v, a twentieth of them again in %v: block files open at most %d, after it %d; "+
		"descriptors %d and before %d; heap %d MiB and before %d; opens %d passed through, %d copied; %d block files "+
		"are the most that are kept",
		files, cold, time.Since(begin), most.Load(), blocks, fds, fdsBefore, heap>>20, heapBefore>>20,
		stats.PassthroughOpens, stats.CopyOpens, 256)
	if most.Load() > 400 {
		t.Errorf("%d block files were open at once", most.Load())
	}
	if fds > fdsBefore+400 {
		t.Errorf("%d descriptors are open, and %d were before", fds, fdsBefore)
	}
	if heap > heapBefore+64<<20 {
		t.Errorf("the heap has grown from %d to %d MiB", heapBefore>>20, heap>>20)
	}
	manyOpen(t, dir)
	// Blocks whose locks were kept would stay.
	freed, err := client.Free(t.Context(), "")
	if err != nil || freed == 0 {
		t.Errorf("freed %d bytes: %v", freed, err)
	}
	if left, err := client.CachedPercentage(t.Context(), ""); err != nil || left != 0 {
		t.Errorf("%d %% are cached after all was freed: %v", left, err)
	}
}

// manyOpen has many more files open at once than a worker has locks, and reads them.
func manyOpen(t *testing.T, dir string) {
	t.Helper()
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	for i := range 10 * locks {
		f, err := os.Open(filepath.Join(dir, name(i)))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, f)
	}
	for i, f := range open {
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content(i)) {
			t.Fatalf("%s, of many that are open, reads %d bytes, %v", name(i), len(got), err)
		}
	}
}

func check(dir string, i int) error {
	got, err := os.ReadFile(filepath.Join(dir, name(i)))
	if err == nil && !bytes.Equal(got, content(i)) {
		err = errors.New("it has other bytes")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name(i), err)
	}
	return nil
}
