package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/machines"
)

// directVolume is a volume without Alluxio, and a claim for it. Its readers all go through the agent.
const directVolume = `apiVersion: v1
kind: PersistentVolume
metadata: {name: hands}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: default, name: hands}
  csi:
    driver: csi.millrace.io
    volumeHandle: hands
    volumeAttributes: {source: "http://` + mirrorName + `/small/one/", passthrough: "false"}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: hands}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}, storageClassName: "", volumeName: hands}
`

// hands are readers of a Dataset and of a static volume on both nodes, while the holders of their mounts come and go.
type hands struct {
	*rest
	readers []string
	// single is the longest that a reader waits where the agent alone is killed.
	single time.Duration
}

// testHands has driver and agent killed and rolled at once under readers, which must not see an error, then the keeper;
// and all three, upon which the pods that have to be restarted are told of.
func testHands(t *testing.T) {
	h := &hands{rest: &rest{get(t)}}
	h.inOrder(t, []step{
		{"Readers", h.start},
		{"AgentKilled", h.agentKilled},
		{"BothKilled", h.bothKilled},
		{"KeeperKilled", h.keeperKilled},
		{"BothRolled", func(t *testing.T) { h.rolled(t, "node", "agent") }},
		{"AllRolled", func(t *testing.T) { h.rolled(t, "node", "agent", "keeper") }},
		{"AllKilled", h.allKilled},
		{"Deleted", h.deleted},
	})
}

func (h *hands) start(t *testing.T) {
	h.apply(t, fmt.Sprintf(sharedDataset, "one", 1))
	h.apply(t, directVolume)
	h.bound(t, "one")
	for _, node := range []string{"node1", "node2"} {
		h.readers = append(h.readers, h.staying(t, node, "one", "/data/one", "-one"))
		h.readers = append(h.readers, h.staying(t, node, "hands", "/data", "-hands"))
	}
	t.Logf("%d readers read", len(h.readers))
}

// staying is startReader for a reader that outlives the step; the last step deletes it.
func (h *hands) staying(t *testing.T, node, claim, dir, suffix string) string {
	t.Helper()
	pod := "reader-" + node + suffix
	h.apply(t, fmt.Sprintf(readerPod, node, claim, dir, suffix))
	h.readsAgain(t, pod)
	return pod
}

// readsAgain waits until the pod has read in the last moments, without an error.
func (h *hands) readsAgain(t *testing.T, pods ...string) {
	t.Helper()
	for _, pod := range pods {
		await(t, time.Minute, pod+" reads", func() error {
			v, err := h.seen(t, pod, time.Now().Add(-1500*time.Millisecond))
			if err == nil && (v.reads == 0 || v.errors > 0) {
				err = fmt.Errorf("%d reads, %d errors: %s", v.reads, v.errors, v.last)
			}
			return err
		})
	}
}

// node is the machine of a node.
func (h *hands) node(t *testing.T, name string) *machines.Machine {
	t.Helper()
	for _, m := range h.cluster.Nodes() {
		if m.Name() == name {
			return m
		}
	}
	t.Fatal("there is no node", name)
	return nil
}

// processes are the numbers of a node's processes of that name, on the node.
func (h *hands) processes(t *testing.T, node, name string) []string {
	t.Helper()
	// Where there are none it fails, and says nothing.
	out, _ := h.node(t, node).Command(t.Context(), "pgrep", "-f", name).Output()
	return strings.Fields(string(out))
}

// kill ends processes of a node at the same moment, with SIGKILL.
func (h *hands) kill(t *testing.T, node string, pids ...string) {
	t.Helper()
	kill := h.node(t, node).Command(t.Context(), append([]string{"kill", "-KILL"}, pids...)...)
	if out, err := kill.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
}

// The command lines of processes: those of driver and agent, and those of keepers.
const (
	servers = "^/usr/bin/millrace (node|agent) "
	keepers = "^/usr/bin/millrace-keeper "
)

// running waits until a node has so many processes of a command line.
func (h *hands) running(t *testing.T, node, name string, count int) {
	t.Helper()
	await(t, time.Minute, fmt.Sprintf("%d of %s on %s", count, name, node), func() error {
		if pids := h.processes(t, node, name); len(pids) != count {
			return fmt.Errorf("there are %d", len(pids))
		}
		return nil
	})
}

// replace has the pods of parts replaced by new ones, at once on both nodes. Kubelet starts the containers of a new pod
// without the pauses that it makes between many starts of one.
func (h *hands) replace(t *testing.T, parts ...string) {
	t.Helper()
	these := "app.kubernetes.io/component in (" + strings.Join(parts, ",") + ")"
	h.kubectl(t, "delete", "pods", "-n", namespace, "-l", these, "--timeout=60s")
	for _, part := range parts {
		h.kubectl(t, "rollout", "status", "-n", namespace, "daemonset/millrace-"+part, "--timeout=60s")
	}
}

// longest is the longest read of all readers since then.
func (h *hands) longest(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	var longest time.Duration
	for _, pod := range h.readers {
		if v, err := h.seen(t, pod, since); err == nil {
			longest = max(longest, v.longest)
		}
	}
	return longest
}

func (h *hands) agentKilled(t *testing.T) {
	begin := time.Now()
	for _, node := range []string{"node1", "node2"} {
		h.kill(t, node, h.agentPID(t, node))
		h.running(t, node, servers, 2)
	}
	h.readsAgain(t, h.readers...)
	h.unharmed(t, begin, h.readers...)
	h.single = h.longest(t, begin)
	t.Logf("with the agent killed alone a read took up to %v", h.single.Round(time.Millisecond))
	h.replace(t, "agent")
}

// agentPID is the agent's process on a node.
func (h *hands) agentPID(t *testing.T, node string) string {
	t.Helper()
	for _, pid := range h.processes(t, node, servers) {
		out, err := h.node(t, node).Command(t.Context(), "cat", "/proc/"+pid+"/cmdline").Output()
		if err == nil && strings.Contains(string(out), "\x00agent\x00") {
			return pid
		}
	}
	t.Fatal("no agent on", node)
	return ""
}

// bothKilled kills driver and agent at the same moment, ten times on each node.
func (h *hands) bothKilled(t *testing.T) {
	const rounds = 10
	begin := time.Now()
	var longest time.Duration
	for range rounds {
		at := time.Now()
		for _, node := range []string{"node1", "node2"} {
			pids := h.processes(t, node, servers)
			if len(pids) != 2 {
				t.Fatalf("%s has the processes %v", node, pids)
			}
			h.kill(t, node, pids...)
		}
		for _, node := range []string{"node1", "node2"} {
			h.running(t, node, servers, 2)
		}
		h.readsAgain(t, h.readers...)
		longest = max(longest, h.longest(t, at))
		h.replace(t, "node", "agent")
	}
	t.Logf("driver and agent killed %d times at the same moment in %v", 2*rounds, time.Since(begin).Round(time.Second))
	t.Logf("a read took up to %v, with the agent killed alone %v",
		longest.Round(time.Millisecond), h.single.Round(time.Millisecond))
	h.unharmed(t, begin, h.readers...)
}

func (h *hands) keeperKilled(t *testing.T) {
	begin := time.Now()
	for _, node := range []string{"node1", "node2"} {
		h.kill(t, node, h.processes(t, node, keepers)...)
		h.running(t, node, keepers, 1)
	}
	// It has everything again: the other two may go.
	h.kubectl(t, "rollout", "status", "-n", namespace, "daemonset/millrace-keeper", "--timeout=60s")
	time.Sleep(time.Second)
	for _, node := range []string{"node1", "node2"} {
		h.kill(t, node, h.processes(t, node, servers)...)
		h.running(t, node, servers, 2)
	}
	h.readsAgain(t, h.readers...)
	h.unharmed(t, begin, h.readers...)
}

// rolled has DaemonSets replace their pods, all at the same time.
func (h *hands) rolled(t *testing.T, parts ...string) {
	begin := time.Now()
	args := []string{"rollout", "restart", "-n", namespace}
	for _, part := range parts {
		args = append(args, "daemonset/millrace-"+part)
	}
	h.kubectl(t, args...)
	for _, part := range parts {
		h.kubectl(t, "rollout", "status", "-n", namespace, "daemonset/millrace-"+part, "--timeout=120s")
	}
	h.readsAgain(t, h.readers...)
	t.Logf("%s rolled in %v", strings.Join(parts, ", "), time.Since(begin).Round(100*time.Millisecond))
	t.Logf("a read took up to %v", h.longest(t, begin).Round(time.Millisecond))
	h.unharmed(t, begin, h.readers...)
}

// allKilled kills all that hold the mounts of node1. Its pods cannot read any more: each is told of by an Event, and
// the Dataset has a condition, until they are gone.
func (h *hands) allKilled(t *testing.T) {
	begin := time.Now()
	h.kill(t, "node1", append(h.processes(t, "node1", servers), h.processes(t, "node1", keepers)...)...)
	pods := []string{"reader-node1-one", "reader-node1-hands"}
	for _, pod := range pods {
		await(t, time.Minute, "an Event of "+pod, func() error {
			of := "reason=MountLost,involvedObject.name=" + pod
			out, err := h.cluster.Kubectl(t.Context(), "get", "events", "--field-selector", of,
				"-o", "jsonpath={.items[*].message}")
			if want := "kubectl -n default delete pod " + pod; err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("there is %q", out)
			}
			return err
		})
	}
	t.Logf("each pod has its Event after %v", time.Since(begin).Round(100*time.Millisecond))
	condition := func(want string) func() error {
		return func() error {
			const message = `jsonpath={.status.conditions[?(@.type=="RestartNeeded")].message}`
			out, err := h.cluster.Kubectl(t.Context(), "get", "dataset", "one", "-o", message)
			if err == nil && (want == "") != (out == "") || !strings.HasSuffix(out, want) {
				err = fmt.Errorf("it says %q", out)
			}
			return err
		}
	}
	await(t, time.Minute, "the Dataset's condition", condition("delete them: reader-node1-one"))
	t.Logf("the Dataset has its condition after %v", time.Since(begin).Round(100*time.Millisecond))
	h.unharmed(t, begin, "reader-node2-one", "reader-node2-hands")
	h.kubectl(t, append([]string{"delete", "pod", "--timeout=60s"}, pods...)...)
	await(t, time.Minute, "the condition is gone", condition(""))
	h.staying(t, "node1", "one", "/data/one", "-one")
	h.staying(t, "node1", "hands", "/data", "-hands")
}

// deleted takes the static volume away, and all else.
func (h *hands) deleted(t *testing.T) {
	h.kubectl(t, "delete", "pods", "-l", "app=reader", "--timeout=60s")
	h.kubectl(t, "delete", "pvc/hands", "pv/hands", "--timeout=60s")
	h.rest.deleted(t)
}
