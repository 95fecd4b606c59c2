// Package rootstat stats the roots of mounts while a test does harm to what serves them.
//
// Kubelet asks for a volume's root before it does anything with it, and takes one that answers as
// [mount.IsCorruptedMnt] describes for lost: it unmounts it under its readers. So no fault that a mount outlives may
// show there. [Watch] asks as kubelet does, which the kernel may answer, and past the kernel's caches, which the server
// must.
package rootstat

import (
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	mount "k8s.io/mount-utils"
)

// pause is the time between two questions: many in each fault, and little work for the machine.
const pause = 2 * time.Millisecond

// Watcher asks for roots until it ends.
type Watcher struct {
	tb    testing.TB
	ended atomic.Bool
	asked atomic.Int64
	users sync.WaitGroup
}

// Watch asks for the roots of the mounts on the directories, again and again, until End, and fails the test for each
// answer that kubelet would call corrupted. What hangs then is freed when the mount goes.
func Watch(tb testing.TB, dirs ...string) *Watcher {
	tb.Helper()
	w := &Watcher{tb: tb}
	for _, dir := range dirs {
		for how, ask := range map[string]func(string) error{"as kubelet": asKubelet, "past the caches": pastCaches} {
			w.users.Go(func() { w.watch(dir, how, ask) })
		}
	}
	tb.Cleanup(w.End)
	return w
}

// watch asks one way for one root, and tells of the first corrupted answer.
func (w *Watcher) watch(dir, how string, ask func(string) error) {
	for !w.ended.Load() {
		err := ask(dir)
		if w.ended.Load() {
			return
		}
		w.asked.Add(1)
		if mount.IsCorruptedMnt(err) {
			w.tb.Errorf("the root of %s, asked %s, is corrupted to kubelet: %v", dir, how, err)
			return
		}
		time.Sleep(pause)
	}
}

// End stops asking; a question that still waits is not waited for, and its answer does not count. It fails the test
// where no question was answered, and does nothing the second time.
func (w *Watcher) End() {
	if w.ended.Swap(true) {
		return
	}
	if n := w.asked.Load(); n == 0 {
		w.tb.Errorf("no root answered")
	} else {
		w.tb.Logf("roots answered %d times", n)
	}
}

func asKubelet(dir string) error {
	_, err := os.Stat(dir)
	return err
}

func pastCaches(dir string) error {
	var st unix.Statx_t
	return unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
}
