package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// testPlaced has Datasets whose place in the cluster is what matters: sources that are directories of a node, workers
// that wait for others to go, the network of nodes, and namespaces that end.
func testPlaced(t *testing.T) {
	r := &rest{get(t)}
	r.inOrder(t, []step{
		{"DirectoryOfANode", r.directoryOfANode},
		{"PodThatHasEnded", r.podThatHasEnded},
		{"NetworkOfNodes", r.networkOfNodes},
		{"WorkerThatWaits", r.workerThatWaits},
		{"NamespaceDeleted", r.namespaceDeleted},
		{"DeletedWithoutQuota", r.deletedWithoutQuota},
		{"Deleted", r.deleted},
	})
}

// onNode runs a command in a directory of a node, which is made where it is not there.
func (r *rest) onNode(t *testing.T, name, node, dir, command string) string {
	t.Helper()
	r.apply(t, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  nodeName: %s
  containers: [{name: main, image: "busybox:stable", command: [sh, -c, %q], volumeMounts: [{name: d, mountPath: /d}]}]
  volumes: [{name: d, hostPath: {path: %s, type: DirectoryOrCreate}}]
`, name, node, command, dir))
	return r.ran(t, name)
}

// directoryOfANode has a source on one node alone, which another user than root owns. Masters and workers go there, and
// pods of that user read it.
func (r *rest) directoryOfANode(t *testing.T) {
	r.onNode(t, "painter", "node1", "/srv/pictures",
		"mkdir -p /d/mine && echo hello >/d/mine/f && chown -R 1201:1201 /d/mine && chmod -R 0750 /d/mine")
	r.kubectl(t, "label", "node", "node1", "pictures=yes", "--overwrite")
	t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "label", "node", "node1", "pictures-") })
	r.apply(t, `apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: pictures}
spec:
  placement: Shared
  mounts: [{mountPoint: "local:///srv/pictures", name: pictures}]
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: pictures, operator: In, values: ["yes"]}]}]}}
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: pictures}
spec:
  replicas: 1
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  runAs: {uid: 1201, gid: 1201, user: painter, group: painters}
`)
	r.bound(t, "pictures")
	for _, pod := range []string{"pictures-master-0", "pictures-worker-0"} {
		if node := r.kubectl(t, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"); node != "node1" {
			t.Errorf("%s is on %s, which has no such directory", pod, node)
		}
	}
	r.apply(t, user("viewer", "node1", "cat /pictures/pictures/mine/f", "runAsUser: 1201, runAsGroup: 1201",
		"pictures"))
	if got := r.ran(t, "viewer"); got != "hello\n" {
		t.Errorf("the pod reads %q", got)
	}
	r.apply(t, user("faraway", "node2", "cat /pictures/pictures/mine/f", "runAsUser: 1201, runAsGroup: 1201",
		"pictures"))
	if got := r.ran(t, "faraway"); got != "hello\n" {
		t.Errorf("the pod on another node reads %q", got)
	}
}

// podThatHasEnded keeps the claim, as Kubernetes has it, and the Dataset that is being deleted says so.
func (r *rest) podThatHasEnded(t *testing.T) {
	r.apply(t, user("ended", "node1", "true", "", "pictures"))
	r.says(t, time.Minute, "Succeeded", "get", "pod", "ended", "-o", "jsonpath={.status.phase}")
	r.kubectl(t, "delete", "dataset", "pictures", "--wait=false")
	await(t, 30*time.Second, "the pod is named", func() error {
		out, err := r.cluster.Kubectl(t.Context(), "get", "dataset", "pictures", "-o",
			`jsonpath={.status.conditions[?(@.type=="Deleting")].message}`)
		if err == nil && !strings.Contains(out, "delete the pods that have ended and name it, ended") {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	r.kubectl(t, "delete", "pod", "ended")
	r.says(t, time.Minute, "", "get", "dataset", "pictures", "--ignore-not-found", "-o", "name")
}

// networkOfNodes has two Datasets on one node, with all of their pods on its network, and says of no port.
func (r *rest) networkOfNodes(t *testing.T) {
	r.kubectl(t, "cordon", "node2")
	t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "uncordon", "node2") })
	for _, name := range []string{"one", "two"} {
		manifest := strings.Replace(fmt.Sprintf(sharedDataset, name, 1), "  master: {replicas: 1}\n",
			"  master: {replicas: 1, networkMode: HostNetwork}\n  worker: {networkMode: HostNetwork}\n", 1)
		r.apply(t, manifest)
	}
	r.bound(t, "one")
	r.bound(t, "two")
	r.apply(t, user("both", "node1", "sha256sum /one/one/* /two/two/*", "", "one", "two"))
	logs := r.ran(t, "both")
	hasSmall(t, logs, "/one/one/")
	hasSmall(t, logs, "/two/two/")
	r.kubectl(t, "uncordon", "node2")
	r.kubectl(t, "delete", "datasets,alluxioruntimes", "--all", "--timeout=180s")
}

// workerThatWaits has workers that want nodes for themselves wait for those of another Dataset, and run soon after they
// are gone.
func (r *rest) workerThatWaits(t *testing.T) {
	exclusive := func(name string) {
		r.apply(t, strings.Replace(fmt.Sprintf(sharedDataset, name, 2), "  placement: Shared\n", "", 1))
	}
	exclusive("one")
	r.bound(t, "one")
	exclusive("two")
	await(t, time.Minute, "the workers of the second wait", func() error {
		out, err := r.cluster.Kubectl(t.Context(), "get", "pods", "two-worker-0", "two-worker-1", "-o",
			"jsonpath={.items[*].status.phase}")
		if err == nil && out != "Pending Pending" {
			err = fmt.Errorf("they are %s", out)
		}
		return err
	})
	r.kubectl(t, "delete", "dataset", "one", "--timeout=180s")
	took := r.says(t, 30*time.Second, "node1 node2", "get", "pods", "two-worker-0", "two-worker-1",
		"--sort-by=.spec.nodeName", "-o", "jsonpath={.items[*].spec.nodeName}")
	t.Logf("the workers have their nodes %v after the other Dataset was gone", took.Round(100*time.Millisecond))
	r.kubectl(t, "delete", "datasets,alluxioruntimes", "--all", "--timeout=180s")
}

// namespaceDeleted deletes a namespace with two Datasets, one of them in use.
func (r *rest) namespaceDeleted(t *testing.T) {
	r.kubectl(t, "create", "namespace", "gone")
	for _, name := range []string{"one", "two"} {
		r.apply(t, fmt.Sprintf(sharedDataset, name, 1), "-n", "gone")
		took := r.says(t, 3*time.Minute, "Bound", "get", "dataset", name, "-n", "gone", "-o",
			"jsonpath={.status.phase}")
		t.Logf("gone/%s is bound after %v", name, took.Round(100*time.Millisecond))
	}
	r.apply(t, user("reader", "node1", "cat /one/one/*.bin >/dev/null && sleep 600", "", "one"), "-n", "gone")
	r.says(t, time.Minute, "Running", "get", "pod", "reader", "-n", "gone", "-o", "jsonpath={.status.phase}")
	begin := time.Now()
	r.kubectl(t, "delete", "namespace", "gone", "--timeout=120s")
	t.Logf("the namespace is gone after %v", time.Since(begin).Round(100*time.Millisecond))
	r.swept(t, "gone")
}

// swept looks for what workers of a namespace left on the nodes.
func (r *rest) swept(t *testing.T, ns string) {
	t.Helper()
	for _, node := range []string{"node1", "node2"} {
		if left := r.onNode(t, "look-"+node, node, "/dev/shm", "ls /d"); strings.Contains(left, ns+"\n") {
			t.Errorf("on %s there is %q", node, left)
		}
	}
}

// deletedWithoutQuota deletes a Dataset of a namespace that may have no pods, and lets none in that see a node.
func (r *rest) deletedWithoutQuota(t *testing.T) {
	r.kubectl(t, "create", "namespace", "closed")
	t.Cleanup(func() {
		_, _ = r.cluster.Kubectl(r.ctx, "delete", "namespace", "closed", "--ignore-not-found", "--timeout=120s")
	})
	r.apply(t, fmt.Sprintf(sharedDataset, "one", 1), "-n", "closed")
	r.says(t, 3*time.Minute, "Bound", "get", "dataset", "one", "-n", "closed", "-o", "jsonpath={.status.phase}")
	r.kubectl(t, "create", "quota", "none", "-n", "closed", "--hard=pods=0")
	r.kubectl(t, "label", "namespace", "closed", "pod-security.kubernetes.io/enforce=restricted")
	begin := time.Now()
	r.kubectl(t, "delete", "dataset", "one", "-n", "closed", "--timeout=120s")
	t.Logf("the Dataset is gone after %v", time.Since(begin).Round(100*time.Millisecond))
	r.swept(t, "closed")
}
