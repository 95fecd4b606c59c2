package csi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/keeping"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/rootstat"
	"millrace.io/millrace/sanity/session"
)

// startAll starts the keeper and both halves, and returns when volumes can be staged.
func (n *node) startAll() {
	n.t.Helper()
	n.startKeeper()
	n.startBoth()
}

// keeps waits until the keeper keeps these volumes and no others.
func (n *node) keeps(ids ...string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("the keeper keeps %v", ids), func(ctx context.Context) error {
		kept, err := keeping.Dial(n.keeperSocket()).List(ctx)
		var have []string
		for _, k := range kept {
			have = append(have, k.ID)
		}
		if err == nil && !slices.Equal(have, ids) {
			err = fmt.Errorf("it keeps %v", have)
		}
		return err
	})
}

// minorAt is the device of the uppermost mount at the path.
func (n *node) minorAt(path string) int {
	n.t.Helper()
	m, err := mountpoint.At(path)
	if err != nil || m == nil {
		n.t.Fatalf("nothing is mounted at %s: %v", path, err)
	}
	return m.Minor
}

// terminate asks processes to end, all at once, and returns when they have.
func (n *node) terminate(all ...*session.Process) {
	n.t.Helper()
	for _, p := range all {
		n.must("terminating", unix.Kill(p.Pid(), unix.SIGTERM))
	}
	for _, p := range all {
		select {
		case <-p.Ended():
		case <-time.After(patience()):
			n.t.Fatal("a process does not end")
		}
	}
}

// killAll kills processes, all at once.
func killAll(all ...*session.Process) {
	for _, p := range all {
		_ = unix.Kill(p.Pid(), unix.SIGKILL)
	}
	for _, p := range all {
		p.Kill()
	}
}

// same checks that the mounts are still those that had these devices, and that nothing lies on top of them.
func (n *node) same(before map[string]int) {
	n.t.Helper()
	for path, minor := range before {
		if layers := layersAt(path); layers != 1 || n.minorAt(path) != minor {
			n.t.Errorf("%d mounts at %s, the uppermost of the device %d, not %d", layers, path, n.minorAt(path), minor)
		}
	}
	if strings.Contains(n.log.String(), "mounted anew") {
		n.t.Error("a volume was mounted anew")
	}
}

// TestHandsBothKilled: driver and agent are killed with -9 at the same moment, again and again, under readers. None
// sees an error, and the mounts are those that they were.
func TestHandsBothKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startAll()
	l := n.startLoad()
	before := map[string]int{}
	for _, id := range []string{"passed", "copied"} {
		for _, path := range []string{n.staging(id), n.target(id, "pod")} {
			before[path] = n.minorAt(path)
		}
	}
	length := soak(t, 3*time.Second)
	kills := 0
	for until := time.Now().Add(length); time.Now().Before(until) && !t.Failed(); kills++ {
		time.Sleep(250 * time.Millisecond)
		killAll(n.serving, n.plugin)
		// Either comes first.
		if kills%2 == 0 {
			n.startAgent()
			n.startPlugin()
		} else {
			n.startPlugin()
			n.startAgent()
		}
		n.answers("passed", "copied")
	}
	l.end(fmt.Sprintf("%d kills of both in %s", kills, length))
	pace.Within(t, "the longest wait of a reader", time.Duration(l.longest.Load()), 10*time.Second)
	n.same(before)
	n.waitReady()
	n.takeDown("passed", "pod")
	n.takeDown("copied", "pod")
	n.keeps()
	if fds := devices(n.keeper.Pid()); fds > 0 {
		t.Errorf("the keeper has %d descriptors of /dev/fuse", fds)
	}
}

// rollAll asks all three to end at once, and starts each anew when it has, as DaemonSets do.
func (n *node) rollAll() {
	n.t.Helper()
	for _, p := range []*session.Process{n.keeper, n.plugin, n.serving} {
		n.must("terminating", unix.Kill(p.Pid(), unix.SIGTERM))
	}
	keeper, plugin, serving := n.keeper.Ended(), n.plugin.Ended(), n.serving.Ended()
	for range 3 {
		select {
		case <-keeper:
			keeper = nil
			n.startKeeper()
		case <-plugin:
			plugin = nil
			n.startPlugin()
		case <-serving:
			serving = nil
			n.startAgent()
		case <-time.After(patience()):
			n.t.Fatal("a process does not end")
		}
	}
}

// TestHandsReplaced: whichever hands go, killed or asked to end, alone or all that are asked at once, the mount is the
// same afterwards, and a process that is new has it too.
func TestHandsReplaced(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startAll()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.must("reading", n.read(n.target("a", "pod")))
	before := map[string]int{}
	for _, path := range []string{n.staging("a"), n.target("a", "pod")} {
		before[path] = n.minorAt(path)
	}
	watcher := rootstat.Watch(t, n.staging("a"), n.target("a", "pod"))
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"the keeper killed", func() { killAll(n.keeper); n.startKeeper() }},
		{"the keeper asked to end", func() { n.terminate(n.keeper); n.startKeeper() }},
		{"keeper and agent killed", func() { killAll(n.keeper, n.serving); n.startAgent(); n.startKeeper() }},
		{"keeper and driver killed", func() { killAll(n.keeper, n.plugin); n.startKeeper(); n.startPlugin() }},
		{"driver and agent asked to end", func() { n.terminate(n.plugin, n.serving); n.startPlugin(); n.startAgent() }},
		{"all three asked to end", n.rollAll},
		{"driver and agent killed at last", func() { killAll(n.plugin, n.serving); n.startAgent(); n.startPlugin() }},
	} {
		begin := time.Now()
		fault.do()
		n.keeps("a")
		n.waitReady()
		n.must(fault.name+": reading", n.read(n.target("a", "pod")))
		n.same(before)
		t.Logf("%s: all is well after %v", fault.name, time.Since(begin).Round(time.Millisecond))
	}
	watcher.End()
	n.takeDown("a", "pod")
	n.keeps()
}

// TestHandsStale: what the keeper could not be told of does no harm. A volume that went while the keeper hung is
// dropped, and one that was mounted anew meanwhile is not taken for the one that is kept.
func TestHandsStale(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startAll()
	for _, id := range []string{"again", "gone"} {
		n.must("staging", n.stage(t.Context(), id))
		n.must("publishing", n.publish(t.Context(), id, "pod"))
	}
	n.keeps("again", "gone")
	n.must("stopping the keeper", unix.Kill(n.keeper.Pid(), unix.SIGSTOP))
	begin := time.Now()
	n.takeDown("gone", "pod")
	n.takeDown("again", "pod")
	pace.Within(t, "taking two volumes down beside a keeper that hangs", time.Since(begin), 10*time.Second)
	n.must("staging", n.stage(t.Context(), "again"))
	n.must("publishing", n.publish(t.Context(), "again", "pod"))
	minor := n.minorAt(n.target("again", "pod"))
	n.must("resuming the keeper", unix.Kill(n.keeper.Pid(), unix.SIGCONT))
	n.keeps("again")
	n.eventually("the present mount is kept", func(context.Context) error {
		if fds := devices(n.keeper.Pid()); fds != 1 {
			return fmt.Errorf("the keeper has %d descriptors of /dev/fuse", fds)
		}
		return nil
	})
	killAll(n.plugin, n.serving)
	n.startBoth()
	n.must("reading", n.read(n.target("again", "pod")))
	n.same(map[string]int{n.target("again", "pod"): minor})
	n.takeDown("again", "pod")
	n.keeps()
}

// lost waits until the agent names these pods as those to be restarted.
func (n *node) lost(pods ...string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("the pods to be restarted are %v", pods), func(ctx context.Context) error {
		named, err := agent.Dial(n.at("agent.sock")).Lost(ctx)
		var have []string
		for _, p := range named {
			have = append(have, p.Volume+" "+p.Namespace+"/"+p.Name+" "+p.UID)
		}
		if err == nil && !slices.Equal(have, pods) {
			err = fmt.Errorf("they are %v", have)
		}
		return err
	})
}

// TestHandsAllKilled: where all three are killed the volume is mounted anew, once the new keeper has said that it has
// nothing. The pod that still has the mount of before is named, by agent and condition, until it has it no more.
func TestHandsAllKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startAll()
	n.must("staging", n.stage(t.Context(), "a"))
	attributes := n.volumeContext()
	for key, value := range map[string]string{"namespace": "ns", "name": "reader", "uid": "1-2-3"} {
		attributes["csi.storage.k8s.io/pod."+key] = value
	}
	n.must("publishing", n.publishAs(t.Context(), "a", "pod", attributes))
	n.must("reading", n.read(n.target("a", "pod")))
	// As a container does, it has mounts of its own.
	container, err := n.work.Start(n.log, "unshare", "--mount", "--propagation", "private", "sleep", "1000")
	n.must("starting a container", err)
	n.eventually("the container has its mounts", func(context.Context) error {
		ours, err1 := os.Readlink("/proc/self/ns/mnt")
		its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", container.Pid()))
		if err := errors.Join(err1, err2); err != nil || ours == its {
			return errors.Join(err, errors.New("it has not begun"))
		}
		return nil
	})
	n.lost()
	killAll(n.plugin, n.serving, n.keeper)
	if err := n.read(n.target("a", "pod")); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
		t.Fatalf("a mount that nobody has ends a read with %v", err)
	}
	n.startBoth()
	n.startKeeper()
	n.eventually("the target reads again", func(context.Context) error { return n.read(n.target("a", "pod")) })
	n.keeps("a")
	n.lost("a ns/reader 1-2-3")
	n.must("the volume's health", n.abnormal(t.Context(), "a"))
	n.stopPlugin()
	n.startPlugin()
	n.waitReady()
	n.lost("a ns/reader 1-2-3")
	container.Kill()
	n.lost()
	if err := n.abnormal(t.Context(), "a"); err == nil {
		t.Error("the volume is abnormal after the pod's end")
	}
	n.takeDown("a", "pod")
}
