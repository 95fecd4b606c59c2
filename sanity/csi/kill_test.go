package csi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/rootstat"
)

// startBoth starts both halves and returns when volumes can be staged.
func (n *node) startBoth() {
	n.t.Helper()
	n.startAgent()
	n.startPlugin()
	n.waitReady()
}

// stopPlugin kills the plugin.
func (n *node) stopPlugin() { n.plugin.Kill() }

// takeDown unpublishes and unstages, however often it takes.
func (n *node) takeDown(id string, pods ...string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.t.Context()), patience())
	defer cancel()
	for _, pod := range pods {
		n.must("unpublishing", insist(ctx, func(ctx context.Context) error { return n.unpublish(ctx, id, pod) }))
		if _, err := os.Lstat(n.target(id, pod)); !errors.Is(err, os.ErrNotExist) {
			n.t.Errorf("the target is still there: %v", err)
		}
	}
	n.must("unstaging", insist(ctx, func(ctx context.Context) error { return n.unstage(ctx, id) }))
}

// TestPluginKilled: what was published reads on without a driver, and the next one takes it back, with open
// files, and takes it down.
func TestPluginKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.must("reading", n.read(n.target("a", "pod")))
	open, err := os.Open(filepath.Join(n.target("a", "pod"), "file"))
	n.must("opening", err)
	defer func() { _ = open.Close() }()

	watcher := rootstat.Watch(t, n.staging("a"), n.target("a", "pod"))
	n.stopPlugin()
	n.must("reading without a plugin", n.read(n.target("a", "pod")))
	n.startPlugin()
	n.waitReady()
	n.must("publishing again", n.publish(t.Context(), "a", "pod"))
	n.must("publishing once more", n.publish(t.Context(), "a", "pod-2"))
	n.must("reading", n.read(n.target("a", "pod-2")))
	if layers := layersAt(n.target("a", "pod")); layers != 1 {
		t.Errorf("%d mounts at the target", layers)
	}
	// What the plugin took back keeps the connection when the agent goes.
	n.serving.Kill()
	n.startAgent()
	n.must("reading from another agent", n.read(n.target("a", "pod")))
	if _, err := open.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Error("an open file:", err)
	}
	_ = open.Close()
	watcher.End()
	n.takeDown("a", "pod", "pod-2")
}

// TestBothKilled: every published path that is still there reads again, in a single layer, and the others are
// forgotten.
func TestBothKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	volumes := []string{"a", "b", "c"}
	for _, id := range volumes {
		n.must("staging", n.stage(t.Context(), id))
		for _, pod := range []string{"pod-1", "pod-2"} {
			n.must("publishing", n.publish(t.Context(), id, pod))
			n.must("reading", n.read(n.target(id, pod)))
		}
	}
	n.stopPlugin()
	n.serving.Kill()
	if err := n.read(n.target("a", "pod-1")); err == nil {
		t.Fatal("a mount without a server reads")
	}
	// A pod went meanwhile.
	n.must("unmounting", mountpoint.Detach(n.target("c", "pod-2"), mountpoint.Lazily))
	n.must("removing", os.Remove(n.target("c", "pod-2")))

	n.startAgent()
	for range 6 {
		// In the midst of the repair, too.
		n.startPlugin()
		time.Sleep(50*time.Millisecond + time.Duration(rand.IntN(100))*time.Millisecond)
		n.stopPlugin()
	}
	begin := time.Now()
	n.startPlugin()
	n.waitReady()
	// With both gone no process has the connections, and no mount can be well until the next two have made them anew: the
	// driver answers before that.
	for _, id := range volumes {
		for _, pod := range []string{"pod-1", "pod-2"} {
			if id == "c" && pod == "pod-2" {
				continue
			}
			n.eventually("reading again", func(context.Context) error { return n.read(n.target(id, pod)) })
			if layers := layersAt(n.target(id, pod)); layers != 1 {
				t.Errorf("%d mounts at %s of %s", layers, pod, id)
			}
		}
		if layers := layersAt(n.staging(id)); layers != 1 {
			t.Errorf("%d mounts at the staging path of %s", layers, id)
		}
	}
	t.Log("all read again after", time.Since(begin))
	watcher := rootstat.Watch(t, n.staging("a"), n.target("a", "pod-1"), n.target("b", "pod-2"))
	n.stopPlugin()
	n.startPlugin()
	n.waitReady()
	watcher.End()
	if _, err := os.Lstat(n.target("c", "pod-2")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a target that had gone is there again")
	}
	n.takeDown("a", "pod-1", "pod-2")
	n.takeDown("b", "pod-1", "pod-2")
	n.takeDown("c", "pod-1", "pod-2")
}

// TestAgentGoneForGood: calls end in bounded time and right without an agent.
func TestAgentGoneForGood(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	watcher := rootstat.Watch(t, n.staging("a"), n.target("a", "pod"))
	n.serving.Kill()
	n.eventually("the volume is abnormal", func(ctx context.Context) error { return n.abnormal(ctx, "a") })
	resp, err := n.client().NodeGetVolumeStats(t.Context(),
		&csi.NodeGetVolumeStatsRequest{VolumeId: "a", VolumePath: n.target("a", "pod")})
	n.must("stats", err)
	if len(resp.GetUsage()) != 1 || len(resp.ProtoReflect().GetUnknown()) == 0 {
		t.Errorf("stats without an agent: %v", resp)
	}
	watcher.End()
	begin := time.Now()
	n.must("unpublishing", n.unpublish(t.Context(), "a", "pod"))
	n.must("unstaging", n.unstage(t.Context(), "a"))
	pace.Within(t, "taking a volume down without an agent", time.Since(begin), 5*time.Second)
}

// abnormal is an error while the driver says that all is well with the volume.
func (n *node) abnormal(ctx context.Context, id string) error {
	resp, err := n.client().NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: id})
	if err == nil && len(resp.GetVolumeHealth().GetHealthStatuses()) == 0 {
		err = errors.New("no adverse condition")
	}
	return err
}

// TestOrphan: a session and a mount that no record knows are ended.
func TestOrphan(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	n.must("staging", n.stage(t.Context(), "kept"))
	n.must("staging", n.stage(t.Context(), "orphan"))
	n.stopPlugin()
	records, err := filepath.Glob(n.at("state/volumes/*.json"))
	n.must("records", err)
	for _, path := range records {
		var record struct{ ID string }
		text, err := os.ReadFile(path)
		n.must("a record", err)
		n.must("a record", json.Unmarshal(text, &record))
		if record.ID == "orphan" {
			n.must("removing a record", os.Remove(path))
		}
	}
	n.startPlugin()
	agent := handover.Dial(n.attachSocket())
	n.eventually("the orphan is gone", func(ctx context.Context) error {
		ids, err := agent.List(ctx)
		if err == nil && (len(ids) != 1 || ids[0] != "kept" || layersAt(n.staging("orphan")) > 0) {
			err = fmt.Errorf("sessions %v, mounts %d", ids, layersAt(n.staging("orphan")))
		}
		return err
	})
	n.takeDown("kept")
}

// TestAbortedConnection: a connection that was aborted is mounted anew, and published again.
func TestAbortedConnection(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.abortAt(n.staging("a"))
	n.eventually("the target reads again", func(context.Context) error { return n.read(n.target("a", "pod")) })
	if layers := layersAt(n.target("a", "pod")); layers != 1 {
		t.Errorf("%d mounts at the target", layers)
	}
	n.takeDown("a", "pod")
}

// TestStateOfAnotherBuild: a state that the next agent cannot read is refused, and the volume is mounted anew and
// published again, as if both processes had gone.
func TestStateOfAnotherBuild(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startBoth()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.must("reading", n.read(n.target("a", "pod")))
	n.serving.Kill()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.plugin.Pid()))
	n.must("the plugin's descriptors", err)
	changed := 0
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || !strings.HasPrefix(to, "/memfd:millrace-session") {
			continue
		}
		f, err := os.OpenFile(link, os.O_WRONLY, 0)
		n.must("opening the state", err)
		// The version is the number behind the first 8 bytes.
		_, err = f.WriteAt([]byte{99}, 8)
		n.must("changing the state", errors.Join(err, f.Close()))
		changed++
	}
	if changed != 1 {
		t.Fatalf("the plugin has %d states", changed)
	}
	n.startAgent()
	n.eventually("the target reads again", func(context.Context) error { return n.read(n.target("a", "pod")) })
	if layers := layersAt(n.target("a", "pod")); layers != 1 {
		t.Errorf("%d mounts at the target", layers)
	}
	n.eventually("the log says that the volume was mounted anew", n.logged("mounted anew"))
	n.takeDown("a", "pod")
}

// TestPluginKilledUnderWork: the plugin is killed again and again while volumes come and go. Every call ends
// right, and nothing is left.
func TestPluginKilledUnderWork(t *testing.T) {
	t.Parallel()
	const volumes, period = 20, 200 * time.Millisecond
	n := newNode(t)
	n.startBoth()
	total := soak(t, 2*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), total+2*patience())
	defer cancel()
	until := time.Now().Add(total)
	var workers sync.WaitGroup
	var rounds [volumes]int
	for i := range volumes {
		id := fmt.Sprintf("volume-%d", i)
		workers.Go(func() {
			for time.Now().Before(until) {
				if err := n.comeAndGo(ctx, id); err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				rounds[i]++
			}
		})
	}
	kills := 0
	for time.Now().Before(until) {
		time.Sleep(period + time.Duration(rand.IntN(20))*time.Millisecond)
		n.stopPlugin()
		n.startPlugin()
		kills++
	}
	workers.Wait()
	sum := 0
	for _, r := range rounds {
		sum += r
	}
	t.Logf("%d kills, %d volumes came and went", kills, sum)
	if sum == 0 {
		t.Error("nothing was done")
	}
	n.waitReady()
	agent := handover.Dial(n.attachSocket())
	n.eventually("the agent is empty", func(ctx context.Context) error {
		ids, err := agent.List(ctx)
		if err == nil && len(ids) > 0 {
			err = fmt.Errorf("sessions %v", ids)
		}
		return err
	})
	for name, pid := range map[string]int{"agent": n.serving.Pid(), "plugin": n.plugin.Pid()} {
		n.eventually("no device is left open", func(context.Context) error {
			if fds := devices(pid); fds > 0 {
				return fmt.Errorf("the %s has %d descriptors of /dev/fuse", name, fds)
			}
			return nil
		})
	}
}

// comeAndGo stages, publishes, reads, and takes down.
func (n *node) comeAndGo(ctx context.Context, id string) error {
	steps := []func(context.Context) error{
		func(ctx context.Context) error { return n.stage(ctx, id) },
		func(ctx context.Context) error { return n.publish(ctx, id, "pod") },
		func(context.Context) error { return n.read(n.target(id, "pod")) },
		func(ctx context.Context) error { return n.unpublish(ctx, id, "pod") },
		func(ctx context.Context) error { return n.unstage(ctx, id) },
	}
	for i, step := range steps {
		if err := insist(ctx, step); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// devices counts the descriptors of /dev/fuse that a process has.
func devices(pid int) int {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	n := 0
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == "/dev/fuse" {
			n++
		}
	}
	return n
}

// abortAt aborts the connection of the mount at the path, as an operator may, through a control file system of the
// test's own.
func (n *node) abortAt(path string) {
	n.t.Helper()
	m, err := mountpoint.At(path)
	if err != nil || m == nil {
		n.t.Fatalf("nothing is mounted at %s: %v", path, err)
	}
	control := n.at("fusectl")
	n.must("making a directory", os.MkdirAll(control, 0o700))
	n.must("mounting fusectl", unix.Mount("fusectl", control, "fusectl", 0, ""))
	defer func() { n.must("unmounting fusectl", mountpoint.Detach(control, mountpoint.Lazily)) }()
	n.must("aborting", os.WriteFile(filepath.Join(control, strconv.Itoa(m.Minor), "abort"), []byte("1"), 0))
}
