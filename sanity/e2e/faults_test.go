package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/kubenodes"
)

// faults are a Dataset that is read on both nodes while parts of what serves it fail.
type faults struct {
	*rig
	readers []string // of node1 and of node2
}

// testFaults has parts of a cluster fail under readers, which must not see an error.
func testFaults(t *testing.T) {
	f := &faults{rig: get(t)}
	f.begin(t)
	for _, fault := range []struct {
		name string
		long bool // not in the short form
		do   func(*testing.T)
	}{
		{"LeadingMaster", false, f.leadingMaster},
		{"Worker", false, f.worker},
		{"Agent", false, f.agent},
		{"AgentRolled", false, f.agentRolled},
		{"Driver", true, f.driver},
		{"Controller", true, f.controller},
		{"SourceDown", true, f.sourceDown},
		{"APIDown", true, f.apiDown},
		{"NodePowerCut", true, f.nodePowerCut},
		{"Deleted", false, f.deleted},
	} {
		t.Run(fault.name, func(t *testing.T) {
			if fault.long && short() {
				t.Skip("in the long form: make e2e")
			}
			fault.do(t)
		})
	}
}

// begin makes the Dataset, starts the readers, and waits until they have all of it cached, by a wire that is as fast as
// it can be.
func (f *faults) begin(t *testing.T) {
	t.Helper()
	if err := f.mirror.Limit(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.mirror.Limit(wire); err != nil {
			t.Error(err)
		}
		// What a test that was ended left.
		_, _ = f.cluster.Kubectl(f.ctx, "delete", "-f", examples, "--ignore-not-found", "--timeout=180s")
	})
	f.kubectl(t, "create", "-f", examples+"dataset.yaml", "-f", examples+"runtime.yaml")
	f.says(t, 3*time.Minute, "Bound", "get", "dataset", "hbase", "-o", "jsonpath={.status.phase}")
	for _, node := range []string{"node1", "node2"} {
		f.readers = append(f.readers, f.startReader(t, node, "hbase", "/data/hbase", ""))
	}
	await(t, 2*time.Minute, "all of it cached", f.cached(t))
}

// deleted removes all of it, after everything that has happened.
func (f *faults) deleted(t *testing.T) {
	begin := time.Now()
	f.kubectl(t, "delete", "pods", "-l", "app=reader")
	f.kubectl(t, "delete", "-f", examples, "--ignore-not-found", "--timeout=180s")
	await(t, 2*time.Minute, "everything gone", func() error { return f.gone(t) })
	t.Logf("all gone after %v", time.Since(begin).Round(100*time.Millisecond))
}

func (f *faults) cached(t *testing.T) func() error {
	t.Helper()
	return func() error {
		out, err := f.cluster.Kubectl(t.Context(), "get", "dataset", "hbase", "-o",
			"jsonpath={.status.cacheStates.cachedPercentage}")
		if err == nil && out != "100.0%" {
			err = fmt.Errorf("%s", out)
		}
		return err
	}
}

// pod is a name of the first pod with that label, on a node where one is given.
func (r *rig) pod(t *testing.T, ns, label, node string) string {
	t.Helper()
	args := []string{"get", "pods", "-n", ns, "-l", label, "-o", "jsonpath={.items[*].metadata.name}"}
	if node != "" {
		args = append(args, "--field-selector", "spec.nodeName="+node)
	}
	names := strings.Fields(r.kubectl(t, args...))
	if len(names) == 0 {
		t.Fatalf("no pod with %s on %q", label, node)
	}
	return names[0]
}

// leader is the pod of the leading master.
func (r *rig) leader(t *testing.T) (string, error) {
	t.Helper()
	out, err := r.cluster.Kubectl(t.Context(), "get", "dataset", "hbase", "-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].message}`)
	_, host, _ := strings.Cut(out, "served by ")
	name, _, _ := strings.Cut(host, ":")
	if err == nil && !strings.HasPrefix(name, "hbase-master-") {
		err = fmt.Errorf("the Dataset says %q", out)
	}
	return name, err
}

func (f *faults) leadingMaster(t *testing.T) {
	name, err := f.leader(t)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	f.kubectl(t, "delete", "pod", name, "--wait=false")
	await(t, 2*time.Minute, "another leader", func() error {
		now, err := f.leader(t)
		if err == nil && now == name {
			err = fmt.Errorf("%s leads", now)
		}
		return err
	})
	t.Logf("another master leads after %v", time.Since(begin).Round(100*time.Millisecond))
	f.recovered(t, begin)
	f.unharmed(t, begin, f.readers...)
}

// recovered waits until all pods of the runtime are there again.
func (f *faults) recovered(t *testing.T, begin time.Time) {
	t.Helper()
	await(t, 3*time.Minute, "all pods ready", func() error {
		out, err := f.cluster.Kubectl(t.Context(), "get", "pods", "--no-headers", "-l", "app=alluxio")
		if err != nil {
			return err
		}
		return readyPods(out, "hbase-master-0", "hbase-master-1", "hbase-master-2", "hbase-worker-0", "hbase-worker-1")
	})
	t.Logf("all pods are ready after %v", time.Since(begin).Round(100*time.Millisecond))
}

func (f *faults) worker(t *testing.T) {
	begin := time.Now()
	f.kubectl(t, "delete", "pod", f.pod(t, "default", "role=alluxio-worker", "node1"), "--wait=false")
	time.Sleep(time.Second)
	f.recovered(t, begin)
	f.unharmed(t, begin, f.readers...)
}

func (f *faults) agent(t *testing.T) {
	begin := time.Now()
	f.kubectl(t, "delete", "pod", "-n", namespace, f.pod(t, namespace, "app.kubernetes.io/component=agent", "node1"))
	f.kubectl(t, "rollout", "status", "-n", namespace, "daemonset/millrace-agent", "--timeout=60s")
	t.Logf("the agent is back after %v", time.Since(begin).Round(100*time.Millisecond))
	f.unharmed(t, begin, f.readers...)
}

// agentRolled rolls the agents to another image.
func (f *faults) agentRolled(t *testing.T) {
	old := f.kubectl(t, "get", "daemonset", "-n", namespace, "millrace-agent", "-o",
		"jsonpath={.spec.template.spec.containers[0].image}")
	const next = "millrace/millrace:next"
	for _, m := range f.cluster.Nodes() {
		if out, err := m.Command(t.Context(), "ctr", "-n", "k8s.io", "images", "tag", "--force", "docker.io/"+old,
			"docker.io/"+next).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
	}
	begin := time.Now()
	for _, image := range []string{next, old} {
		f.kubectl(t, "set", "image", "-n", namespace, "daemonset/millrace-agent", "agent="+image)
		f.kubectl(t, "rollout", "status", "-n", namespace, "daemonset/millrace-agent", "--timeout=120s")
	}
	t.Logf("rolled there and back in %v", time.Since(begin).Round(100*time.Millisecond))
	f.unharmed(t, begin, f.readers...)
}

func (f *faults) driver(t *testing.T) {
	begin := time.Now()
	f.kubectl(t, "delete", "pod", "-n", namespace, f.pod(t, namespace, "app.kubernetes.io/component=node", "node1"))
	f.kubectl(t, "rollout", "status", "-n", namespace, "daemonset/millrace-node", "--timeout=60s")
	t.Logf("the driver is back after %v", time.Since(begin).Round(100*time.Millisecond))
	// It takes volumes again.
	f.startReader(t, "node1", "hbase", "/data/hbase", "-later")
	f.unharmed(t, begin, f.readers...)
}

func (f *faults) controller(t *testing.T) {
	begin := time.Now()
	f.kubectl(t, "delete", "pods", "-n", namespace, "-l", "app.kubernetes.io/component=controller")
	f.kubectl(t, "rollout", "status", "-n", namespace, "deployment/millrace-controller", "--timeout=60s")
	pods := strings.Fields(f.kubectl(t, "get", "pods", "-n", namespace, "-l", "app.kubernetes.io/component=controller",
		"-o", "jsonpath={.items[*].metadata.name}"))
	await(t, time.Minute, "a new controller works", func() error {
		holder, err := f.cluster.Kubectl(t.Context(), "get", "lease", "-n", namespace, "millrace-controller", "-o",
			"jsonpath={.spec.holderIdentity}")
		name, _, _ := strings.Cut(holder, "_")
		if err == nil && !slices.Contains(pods, name) {
			err = fmt.Errorf("%q holds the lease, and the controllers are %q", holder, pods)
		}
		return err
	})
	t.Logf("a controller works after %v", time.Since(begin).Round(100*time.Millisecond))
	f.unharmed(t, begin, f.readers...)
}

// outage is how long the source and the API are away.
const outage = time.Minute

func (f *faults) sourceDown(t *testing.T) {
	begin := time.Now()
	if err := f.mirror.StopService(t.Context(), apacheService, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(outage)
	if err := f.startApache(f.mirror); err != nil {
		t.Fatal(err)
	}
	f.unharmed(t, begin, f.readers...)
}

func (f *faults) apiDown(t *testing.T) {
	begin := time.Now()
	control := f.cluster.Control()
	if err := control.StopService(t.Context(), kubenodes.APIServer, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(outage)
	back := time.Now()
	if err := f.cluster.StartService(t.Context(), control, kubenodes.APIServer); err != nil {
		t.Fatal(err)
	}
	if err := f.cluster.AwaitAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.cluster.AwaitNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.recovered(t, back)
	f.unharmed(t, begin, f.readers...)
}

// nodePowerCut ends node2, and starts it again: the readers of node1 see nothing, and new ones on node2 read.
func (f *faults) nodePowerCut(t *testing.T) {
	begin := time.Now()
	if err := f.cluster.PowerCut("node2"); err != nil {
		t.Fatal(err)
	}
	// The node controller may be without the API server still: after a minute without one, its client pauses for as long.
	f.says(t, 3*time.Minute, "Unknown", "get", "node", "node2", "-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	t.Logf("the node is not ready after %v", time.Since(begin).Round(100*time.Millisecond))
	time.Sleep(20 * time.Second)
	f.unharmed(t, begin, f.readers[0])
	up := time.Now()
	if err := f.cluster.Boot(t.Context(), "node2"); err != nil {
		t.Fatal(err)
	}
	if err := f.cluster.AwaitNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("the node is ready %v after its start", time.Since(up).Round(100*time.Millisecond))
	// What the API server says of the node's pods is old until their containers have started again.
	await(t, 3*time.Minute, "the node's masters and workers started again", func() error {
		out, err := f.cluster.Kubectl(t.Context(), "get", "pods", "-l", "app=alluxio", "--field-selector",
			"spec.nodeName=node2", "-o",
			"jsonpath={range .items[*].status.containerStatuses[*]}{.restartCount}{\" \"}{end}")
		if err == nil && (out == "" || strings.Contains(" "+out, " 0 ")) {
			err = fmt.Errorf("restarts: %s", out)
		}
		return err
	})
	f.recovered(t, up)
	// The reader's container starts again with the node, and reads.
	await(t, 2*time.Minute, "node2's reader reads", func() error {
		v, err := f.seen(t, f.readers[1], up)
		if err == nil && (v.reads == 0 || v.errors > 0) {
			err = fmt.Errorf("%d reads, %d errors: %s", v.reads, v.errors, v.last)
		}
		return err
	})
	t.Logf("its reader reads %v after its start", time.Since(up).Round(100*time.Millisecond))
	f.unharmed(t, begin, f.readers[0])
}
