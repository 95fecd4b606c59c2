package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pattern"
)

// rest are two small Datasets that share their nodes.
type rest struct{ *rig }

// sharedDataset is a Dataset, and its runtime of one master and some workers.
const sharedDataset = `apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: %[1]s}
spec:
  placement: Shared
  mounts:
    - {mountPoint: "http://` + mirrorName + `/small/%[1]s/", name: %[1]s}
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  master: {replicas: 1}
`

// step is a test that the next ones build on.
type step struct {
	name string
	do   func(*testing.T)
}

// inOrder runs the steps of the long form, one after the other.
func (r *rest) inOrder(t *testing.T, steps []step) {
	t.Helper()
	if short() {
		t.Skip("in the long form: make e2e")
	}
	r.begin(t)
	for _, s := range steps {
		t.Run(s.name, s.do)
	}
}

// testAPI uses the rest of what a user may ask for.
func testAPI(t *testing.T) {
	r := &rest{get(t)}
	r.inOrder(t, []step{
		{"PodBeforeDataset", r.podBeforeDataset},
		{"TwoDatasetsOnOneNode", r.twoDatasets},
		{"NonRoot", r.nonRoot},
		{"ReadOnly", r.readOnly},
		{"DataLoad", r.dataLoad},
		{"MountAdded", r.mountAdded},
		{"WorkersScaled", r.workersScaled},
		{"Ephemeral", r.ephemeral},
		{"StorageClass", r.storageClass},
		{"S3", r.s3},
		{"Trouble", r.trouble},
		{"Deleted", r.deleted},
	})
}

// smallFiles are in each of the small directories.
var smallFiles = map[string]int64{"a.bin": 5<<20 + 17, "b.bin": 3 << 20, "c.txt": 12345}

func (r *rest) begin(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"one", "two", "more"} {
		at := filepath.Join(r.htdocs(), "small", dir)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, size := range smallFiles {
			if err := pattern.Write(filepath.Join(at, name), name, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		// What a test that was ended left.
		_, _ = r.cluster.Kubectl(r.ctx, "delete", everything, "--all", "--timeout=180s")
		_, _ = r.cluster.Kubectl(r.ctx, "delete", "secret", "keys", "network", "volume", "--ignore-not-found")
		_, _ = r.cluster.Kubectl(r.ctx, "delete", "pvc/classed", "storageclass/classed", "--ignore-not-found")
	})
	t.Cleanup(func() { r.hold(t) })
}

// everything is what a user has made.
const everything = "pods,jobs,dataloads,datasets,alluxioruntimes"

func (r *rest) deleted(t *testing.T) {
	begin := time.Now()
	r.kubectl(t, "delete", "secret", "keys", "network", "volume", "--ignore-not-found")
	r.kubectl(t, "delete", everything, "--all", "--timeout=180s")
	await(t, 2*time.Minute, "everything gone", func() error { return r.gone(t) })
	t.Logf("all gone after %v", time.Since(begin).Round(100*time.Millisecond))
}

// bound waits until a Dataset is.
func (r *rest) bound(t *testing.T, name string) {
	t.Helper()
	took := r.says(t, 3*time.Minute, "Bound", "get", "dataset", name, "-o", "jsonpath={.status.phase}")
	t.Logf("%s is bound after %v", name, took.Round(100*time.Millisecond))
}

// user is a pod that runs a command over claims, each at /NAME.
func user(name, node, command, security string, claims ...string) string {
	var mounts, volumes strings.Builder
	for _, c := range claims {
		fmt.Fprintf(&mounts, "        - {name: %[1]s, mountPath: /%[1]s}\n", c)
		fmt.Fprintf(&volumes, "    - {name: %[1]s, persistentVolumeClaim: {claimName: %[1]s}}\n", c)
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  nodeSelector: {kubernetes.io/hostname: %s}
  securityContext: {%s}
  containers:
    - name: main
      image: busybox:stable
      command: [sh, -c, %q]
      volumeMounts:
%s  volumes:
%s`, name, node, security, command, mounts.String(), volumes.String())
}

// ran waits for a pod's success, and returns what it printed.
func (r *rig) ran(t *testing.T, pod string) string {
	t.Helper()
	await(t, 2*time.Minute, pod+" ends", func() error {
		out, err := r.cluster.Kubectl(t.Context(), "get", "pod", pod, "-o", "jsonpath={.status.phase}")
		if err == nil && out == "Failed" {
			logs, _ := r.cluster.Kubectl(t.Context(), "logs", pod)
			t.Fatalf("%s failed: %s", pod, logs)
		}
		if err == nil && out != "Succeeded" {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	logs := r.kubectl(t, "logs", pod)
	r.kubectl(t, "delete", "pod", pod)
	return logs
}

// hasSmall checks the sums of all small files.
func hasSmall(t *testing.T, logs, dir string) {
	t.Helper()
	for name, size := range smallFiles {
		if want := sumOf(t, name, size) + "  " + dir + name; !strings.Contains(logs, want) {
			t.Errorf("no %q in %q", want, logs)
		}
	}
}

func (r *rest) podBeforeDataset(t *testing.T) {
	r.apply(t, user("early", "node1", "sha256sum /one/one/*", "", "one"))
	time.Sleep(3 * time.Second)
	if out := r.kubectl(t, "get", "pod", "early", "-o", "jsonpath={.status.phase}"); out != "Pending" {
		t.Errorf("a pod whose Dataset is not there is %s", out)
	}
	r.apply(t, fmt.Sprintf(sharedDataset, "one", 1))
	r.bound(t, "one")
	hasSmall(t, r.ran(t, "early"), "/one/one/")
}

func (r *rest) twoDatasets(t *testing.T) {
	r.apply(t, fmt.Sprintf(sharedDataset, "two", 1))
	r.bound(t, "two")
	r.apply(t, user("both", "node1", "sha256sum /one/one/* /two/two/*", "", "one", "two"))
	logs := r.ran(t, "both")
	hasSmall(t, logs, "/one/one/")
	hasSmall(t, logs, "/two/two/")
}

func (r *rest) nonRoot(t *testing.T) {
	r.apply(t, user("nonroot", "node2", "id && sha256sum /one/one/*",
		"runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000", "one"))
	logs := r.ran(t, "nonroot")
	if !strings.Contains(logs, "uid=1000") {
		t.Errorf("it runs as %q", logs)
	}
	hasSmall(t, logs, "/one/one/")
}

func (r *rest) readOnly(t *testing.T) {
	manifest := user("readonly", "node1", "sha256sum /one/one/* && ! touch /one/one/x && ! rm /one/one/a.bin", "",
		"one")
	manifest = strings.Replace(manifest, "claimName: one}", "claimName: one, readOnly: true}", 1)
	r.apply(t, manifest)
	hasSmall(t, r.ran(t, "readonly"), "/one/one/")
}

func (r *rest) dataLoad(t *testing.T) {
	r.apply(t, `apiVersion: data.fluid.io/v1alpha1
kind: DataLoad
metadata: {name: load}
spec:
  dataset: {name: two}
  target: [{path: /}]
`)
	took := r.says(t, 2*time.Minute, "Complete", "get", "dataload", "load", "-o", "jsonpath={.status.phase}")
	t.Logf("loaded after %v", took.Round(100*time.Millisecond))
	r.says(t, time.Minute, "100.0%", "get", "dataset", "two", "-o", "jsonpath={.status.cacheStates.cachedPercentage}")
}

func (r *rest) mountAdded(t *testing.T) {
	pods := func() string {
		return r.kubectl(t, "get", "pods", "-l", "release=one", "--sort-by=.metadata.name", "-o",
			"jsonpath={.items[*].metadata.uid}")
	}
	before := pods()
	r.apply(t, user("added", "node1", "ls /one; until sha256sum /one/more/* 2>/dev/null; do sleep 0.2; done", "",
		"one"))
	r.says(t, time.Minute, "Running", "get", "pod", "added", "-o", "jsonpath={.status.phase}")
	begin := time.Now()
	r.kubectl(t, "patch", "dataset", "one", "--type=json", "-p",
		`[{"op":"add","path":"/spec/mounts/-","value":{"mountPoint":"http://`+mirrorName+
			`/small/more/","name":"more"}}]`)
	r.says(t, time.Minute, "Succeeded", "get", "pod", "added", "-o", "jsonpath={.status.phase}")
	withinTime(t, "a mount that is added is read", time.Since(begin), 10*time.Second)
	hasSmall(t, r.ran(t, "added"), "/one/more/")
	if after := pods(); after != before {
		t.Errorf("the pods are %s, and were %s before", after, before)
	}
	hasSmall(t, r.readAgain(t), "/one/one/")
}

// readAgain reads the first mount, which has been there all the time.
func (r *rest) readAgain(t *testing.T) string {
	t.Helper()
	r.apply(t, user("again", "node2", "sha256sum /one/one/*", "", "one"))
	return r.ran(t, "again")
}

func (r *rest) workersScaled(t *testing.T) {
	for _, n := range []string{"2", "1"} {
		begin := time.Now()
		r.kubectl(t, "patch", "alluxioruntime", "one", "--type=merge", "-p", `{"spec":{"replicas":`+n+`}}`)
		r.says(t, 3*time.Minute, n+"/"+n, "get", "alluxioruntime", "one", "-o",
			"jsonpath={.status.workerNumberReady}/{.status.desiredWorkerNumberScheduled}")
		kind := map[string]string{"2": "WorkersScaledOut", "1": "WorkersScaledIn"}[n]
		r.says(t, time.Minute, "True", "get", "alluxioruntime", "one", "-o",
			`jsonpath={.status.conditions[?(@.type=="`+kind+`")].status}`)
		r.says(t, time.Minute, n, "get", "statefulset", "one-worker", "-o", "jsonpath={.status.replicas}")
		t.Logf("%s workers after %v", n, time.Since(begin).Round(100*time.Millisecond))
		hasSmall(t, r.readAgain(t), "/one/one/")
	}
}

func (r *rest) ephemeral(t *testing.T) {
	manifest := user("inline", "node2", "sha256sum /inline/*", "", "inline")
	manifest = strings.Replace(manifest, "persistentVolumeClaim: {claimName: inline}",
		`csi: {driver: csi.millrace.io, readOnly: true, volumeAttributes: {source: "http://`+mirrorName+
			`/small/two/", quota: 64Mi}}`, 1)
	r.apply(t, manifest)
	hasSmall(t, r.ran(t, "inline"), "/inline/")
}

// storageClass has a pod read through a claim of a class, which takes its volume along.
func (r *rest) storageClass(t *testing.T) {
	r.apply(t, `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: classed}
provisioner: csi.millrace.io
parameters: {source: "http://`+mirrorName+`/small/two/", quota: 64Mi}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: classed}
spec:
  storageClassName: classed
  accessModes: [ReadOnlyMany]
  resources: {requests: {storage: 1Gi}}
`)
	took := r.says(t, time.Minute, "Bound", "get", "pvc", "classed", "-o", "jsonpath={.status.phase}")
	t.Logf("the claim is bound after %v", took.Round(100*time.Millisecond))
	volume := r.kubectl(t, "get", "pvc", "classed", "-o", "jsonpath={.spec.volumeName}")
	r.apply(t, user("classed", "node1", "sha256sum /classed/* && ! touch /classed/x", "", "classed"))
	hasSmall(t, r.ran(t, "classed"), "/classed/")
	r.kubectl(t, "delete", "pvc", "classed")
	r.says(t, time.Minute, "", "get", "pv", volume, "--ignore-not-found", "-o", "name")
	r.kubectl(t, "delete", "storageclass", "classed")
}
