package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/machines"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/pattern"
)

const (
	examples = "../../deploy/examples/hbase/"
)

// What the walkthrough must reach.
const (
	boundLimit   = 60 * time.Second
	runningLimit = 3 * time.Second
	fasterLeast  = 20.0
	nativeMost   = 1.5
	// Of the controller, the driver and the agent of a node, in bytes, before there is any Dataset.
	footprintMost = 150_000_000
)

// loose is by how much a ratio may be larger: the short form also runs on machines that have other work.
func loose() float64 {
	if short() {
		return 2
	}
	return 1
}

// withinTime fails the test where what it names took longer than the limit. The short form only notices what hangs.
func withinTime(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	if short() {
		limit *= 5
	}
	pace.Within(t, what, took, limit)
}

// walk is the walkthrough on its way.
type walk struct {
	*rig
	transcript
	cold, warm, native time.Duration
}

// testWalkthrough goes the way of a user, from the Dataset to its removal.
func testWalkthrough(t *testing.T) {
	w := &walk{rig: get(t)}
	t.Cleanup(w.forget)
	t.Cleanup(func() { w.hold(t) })
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"Installed", w.installed},
		{"DatasetCreated", w.datasetCreated},
		{"RuntimeBound", w.runtimeBound},
		{"Objects", w.objects},
		{"Masters", w.masters},
		{"PodReads", w.podReads},
		{"CopiedCold", w.copiedCold},
		{"CopiedWarm", w.copiedWarm},
		{"CopiedOnTheOtherNode", w.copiedOnTheOtherNode},
		{"Deleted", w.deleted},
	} {
		if !t.Run(step.name, step.do) {
			t.FailNow()
		}
	}
	if page := os.Getenv("MILLRACE_E2E_PAGE"); page != "" {
		if err := os.WriteFile(page, []byte(w.text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// forget removes what a walkthrough that failed leaves.
func (w *walk) forget() {
	_, _ = w.cluster.Kubectl(w.ctx, "delete", "--ignore-not-found", "--timeout=120s", "-f", examples)
}

func (w *walk) installed(t *testing.T) {
	w.say("# From `kubectl create` to `kubectl delete`")
	w.say("<!-- Written by make walkthrough from what it typed and saw; do not edit. -->")
	w.say("A directory of a web server, like that of HBase's stable release (550 MiB), becomes a claim that pods " +
		"mount: three masters and two " +
		"workers of Alluxio on a cluster of two nodes. The web server is Apache httpd behind a wire of 100 Mbit/s. " +
		"The files are in " +
		"[examples/hbase](examples/hbase).")
	out := w.kubectl(t, "get pods -n "+namespace)
	if n := len(lines(out)) - 1; n != 8 {
		t.Errorf("%d pods, not 8: two controllers, and driver, agent and keeper on each node", n)
	}
	for _, m := range w.cluster.Nodes() {
		used, err := w.footprint(t, m)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("millrace's processes on %s: %d MB", m.Name(), used/1e6)
		if used > footprintMost {
			t.Errorf("millrace's processes on %s take %d MB, more than %d", m.Name(), used/1e6, footprintMost/1_000_000)
		}
	}
}

// footprint is the memory in bytes of millrace's processes on a node, what they share counted once.
func (w *walk) footprint(t *testing.T, m *machines.Machine) (int64, error) {
	t.Helper()
	out, err := m.Command(t.Context(), "sh", "-c",
		`for p in $(pgrep -f '^(/usr/bin/)?millrace(-controller|-keeper| node| agent) '); do grep ^Pss: /proc/$p/smaps_rollup; done | awk '{kib += $2; n++} END {print n, kib}'`).Output()
	if err != nil {
		return 0, err
	}
	var n, kib int64
	if _, err := fmt.Sscan(string(out), &n, &kib); err != nil {
		return 0, fmt.Errorf("processes of millrace on %s: %q: %w", m.Name(), out, err)
	}
	if n != 4 {
		return 0, fmt.Errorf("%d processes of millrace on %s, not 4", n, m.Name())
	}
	return kib << 10, nil
}

func (w *walk) kubectl(t *testing.T, command string) string {
	t.Helper()
	return w.transcript.kubectl(t, w.rig, command)
}

// create creates the objects of an example.
func (w *walk) create(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(examples + file)
	if err != nil {
		t.Fatal(err)
	}
	w.say("```yaml\n%s```", text)
	out := w.rig.kubectl(t, "create", "-f", examples+file)
	w.show("kubectl create -f "+file, out)
}

func (w *walk) datasetCreated(t *testing.T) {
	w.say("## The Dataset and its runtime")
	w.create(t, "dataset.yaml")
	w.says(t, 10*time.Second, "NotBound", "get", "dataset", "hbase", "-o", "jsonpath={.status.phase}")
	w.kubectl(t, "get dataset hbase")
}

func (w *walk) runtimeBound(t *testing.T) {
	w.create(t, "runtime.yaml")
	took := w.says(t, 3*boundLimit, "Bound", "get", "dataset", "hbase", "-o", "jsonpath={.status.phase}")
	w.say("The Dataset is bound %.0f seconds later.", took.Seconds())
	t.Logf("bound after %v", took.Round(100*time.Millisecond))
	withinTime(t, "binding the Dataset", took, boundLimit)
	await(t, time.Minute, "all pods ready", func() error {
		out, err := w.cluster.Kubectl(t.Context(), "get", "pods", "--no-headers")
		if err != nil {
			return err
		}
		return readyPods(out, "hbase-master-0", "hbase-master-1", "hbase-master-2", "hbase-worker-0", "hbase-worker-1")
	})
	w.kubectl(t, "get pods -o wide")
}

// readyPods checks that exactly these pods run and are ready.
func readyPods(out string, names ...string) error {
	if n := len(lines(out)); n != len(names) {
		return fmt.Errorf("%d pods, not %d", n, len(names))
	}
	for _, name := range names {
		var ok bool
		for _, line := range lines(out) {
			f := strings.Fields(line)
			ready, all, _ := strings.Cut(f[1], "/")
			ok = ok || f[0] == name && ready == all && f[2] == "Running"
		}
		if !ok {
			return fmt.Errorf("%s is not ready: %s", name, out)
		}
	}
	return nil
}

func (w *walk) objects(t *testing.T) {
	await(t, 30*time.Second, "the Dataset's size", func() error {
		out, err := w.cluster.Kubectl(t.Context(), "get", "dataset", "hbase", "--no-headers")
		return errors.Join(err, matches(out, `^hbase +550\.\d+MiB +0\.00B +4\.00GiB +0\.0% +Bound +\S+\s*$`))
	})
	w.kubectl(t, "get dataset hbase")
	await(t, 30*time.Second, "the runtime's state", func() error {
		out, err := w.cluster.Kubectl(t.Context(), "get", "alluxioruntime", "hbase", "-o", "wide", "--no-headers")
		return errors.Join(err, matches(out, `^hbase +3 +3 +Ready +2 +2 +Ready +0 +0 +Ready `))
	})
	w.kubectl(t, "get alluxioruntime hbase -o wide")
	out := w.kubectl(t, "get pv,pvc")
	for _, want := range []string{
		`(?m)^persistentvolume/hbase +100Gi +RWX +Retain +Bound +default/hbase `,
		`(?m)^persistentvolumeclaim/hbase +Bound +hbase +100Gi +RWX `,
	} {
		if err := matches(out, want); err != nil {
			t.Error(err)
		}
	}
}

func (w *walk) masters(t *testing.T) {
	out := w.kubectl(t, "exec hbase-master-0 -- alluxio fs masterInfo")
	if err := matches(out, `(?m)^Current leader master: hbase-master-[0-2].*:19998$`); err != nil {
		t.Error(err)
	}
	for i := range 3 {
		if name := fmt.Sprintf("hbase-master-%d", i); !strings.Contains(out, name) {
			t.Errorf("%s is not in %s", name, out)
		}
	}
}

func (w *walk) podReads(t *testing.T) {
	w.say("## A pod that mounts it")
	w.create(t, "app.yaml")
	took := w.says(t, time.Minute, "true", "get", "pod", "nginx", "-o", "jsonpath={.status.containerStatuses[0].ready}")
	w.say("It runs %.1f seconds later.", took.Seconds())
	t.Logf("nginx runs after %v", took.Round(10*time.Millisecond))
	withinTime(t, "starting the pod", took, runningLimit)
	out := w.kubectl(t, "exec nginx -- ls -1 /data/hbase")
	var want []string
	for _, f := range hbase {
		want = append(want, f.name)
	}
	if got := lines(out); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("ls shows %q, not %q", got, want)
	}
	du := w.rig.kubectl(t, "exec", "nginx", "--", "sh", "-c", "du -h /data/hbase/*")
	w.show("kubectl exec nginx -- sh -c 'du -h /data/hbase/*'", du)
	if n := len(lines(du)); n != len(hbase) {
		t.Errorf("du shows %d files, not %d", n, len(hbase))
	}
	// The web server in the pod serves a file of the claim, here from its second mount, a subPath.
	ip := w.rig.kubectl(t, "get", "pod", "nginx", "-o", "jsonpath={.status.podIP}")
	get := w.cluster.Control().InNetwork(t.Context(), "curl", "-sSf", "-m", "60", "http://"+ip+"/hbase/"+hbase[0].name)
	text, err := get.Output()
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(text)) != hbase[0].size || !pattern.Equal(hbase[0].name, 0, text) {
		t.Errorf("nginx serves %d bytes, and not those of %s", len(text), hbase[0].name)
	}
	w.show("curl -s http://"+ip+"/hbase/"+hbase[0].name+" | wc -c", strconv.Itoa(len(text)))
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// copyJob runs the Job that copies the Dataset on a node, and returns what time says; the page shows what it logs where
// it is to.
func (w *walk) copyJob(t *testing.T, node string, show bool) time.Duration {
	t.Helper()
	text, err := os.ReadFile(examples + "job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pinned := strings.Replace(string(text), "restartPolicy: Never\n",
		"restartPolicy: Never\n      nodeSelector: {kubernetes.io/hostname: "+node+"}\n", 1)
	created, err := w.cluster.KubectlInput(t.Context(), pinned, "create", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	w.awaitJob(t, "copy")
	logs := w.rig.kubectl(t, "logs", "job/copy")
	if show {
		w.say("With `nodeSelector: {kubernetes.io/hostname: %s}` in the pod's template:", node)
		w.show("kubectl create -f job.yaml", created)
		w.show("kubectl logs job/copy", logs)
	}
	checkSums(t, logs)
	w.rig.kubectl(t, "delete", "job", "copy", "--wait")
	return realTime(t, logs)
}

// awaitJob returns when a Job is complete, and fails with its log when it fails.
func (r *rig) awaitJob(t *testing.T, name string) {
	t.Helper()
	await(t, 5*time.Minute, "job "+name, func() error {
		out, err := r.cluster.Kubectl(t.Context(), "get", "job", name, "-o",
			"jsonpath={.status.succeeded}/{.status.failed}")
		if err == nil && strings.HasSuffix(out, "/1") {
			logs, _ := r.cluster.Kubectl(t.Context(), "logs", "job/"+name)
			t.Fatalf("job %s failed: %s", name, logs)
		}
		if err == nil && out != "1/" {
			err = errors.New("runs")
		}
		return err
	})
}

// checkSums compares the sums in a log with those of what the web server has.
func checkSums(t *testing.T, logs string) {
	t.Helper()
	for _, f := range hbase {
		if want := sumOf(t, f.name, f.size) + "  " + f.name; !strings.Contains(logs, want) {
			t.Errorf("no %q in %s", want, logs)
		}
	}
}

var sums = map[string]string{}

func sumOf(t *testing.T, name string, size int64) string {
	t.Helper()
	if sums[name] == "" {
		h := sha256.New()
		if _, err := io.Copy(h, pattern.Reader(name, size)); err != nil {
			t.Fatal(err)
		}
		sums[name] = hex.EncodeToString(h.Sum(nil))
	}
	return sums[name]
}

var realLine = regexp.MustCompile(`(?m)^real\s+(?:(\d+)h\s*)?(?:(\d+)m\s*)?([0-9.]+)s`)

// realTime is what time says.
func realTime(t *testing.T, logs string) time.Duration {
	t.Helper()
	f := realLine.FindStringSubmatch(logs)
	if f == nil {
		t.Fatalf("no line of time in %s", logs)
	}
	var d time.Duration
	for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		if f[i+1] != "" {
			n, err := strconv.ParseFloat(f[i+1], 64)
			if err != nil {
				t.Fatal(err)
			}
			d += time.Duration(n * float64(unit))
		}
	}
	return d
}

func (w *walk) copiedCold(t *testing.T) {
	w.say("## The whole of it, cold and warm")
	text, err := os.ReadFile(examples + "job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w.say("```yaml\n%s```", text)
	w.cold = w.copyJob(t, "node1", true)
	await(t, 30*time.Second, "all cached", func() error {
		out, err := w.cluster.Kubectl(t.Context(), "get", "dataset", "hbase", "--no-headers")
		return errors.Join(err, matches(out, `^hbase +550\.\d+MiB +550\.\d+MiB +4\.00GiB +100\.0% +Bound `))
	})
	w.kubectl(t, "get dataset hbase")
	t.Logf("cold copy: %v", w.cold)
}

func (w *walk) copiedWarm(t *testing.T) {
	w.say("The same Job again, on the same node:")
	w.warm = w.copyJob(t, "node1", true)
	// Fractions of a second on a machine with other work: three of each, in turns.
	warm, native := []time.Duration{w.warm}, []time.Duration{w.nativeCopy(t)}
	for range 2 {
		warm, native = append(warm, w.copyJob(t, "node1", false)), append(native, w.nativeCopy(t))
	}
	w.warm, w.native = median(warm), median(native)
	faster, ratio := w.cold.Seconds()/w.warm.Seconds(), w.warm.Seconds()/w.native.Seconds()
	w.say("The median of three such copies is %.2f s, %.0f times faster than the first, and %.2f times as long as the "+
		"same copy from the node's own tmpfs (%.2f s).",
		w.warm.Seconds(), faster, ratio, w.native.Seconds())
	t.Logf("copies %v, %.1f x faster; from tmpfs %v, %.2f x", warm, faster, native, ratio)
	if faster < fasterLeast {
		t.Errorf("the second copy is %.1f x faster, less than %.0f x", faster, fasterLeast)
	}
	if ratio > loose()*nativeMost {
		t.Errorf("the second copy takes %.2f x as long as that from tmpfs, more than %.1f x", ratio, loose()*nativeMost)
	}
}

// nativeJob copies the data to the node's tmpfs, and times the copy from there.
const nativeJob = `apiVersion: batch/v1
kind: Job
metadata: {name: native}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      nodeSelector: {kubernetes.io/hostname: node1}
      containers:
        - name: copy
          image: busybox:stable
          workingDir: /copy
          command: [sh, -c, "cp -r /data/hbase /native/ && time cp -r /native/hbase ./; rm -r /native/hbase"]
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: native, mountPath: /native}
            - {name: copy, mountPath: /copy}
      volumes:
        - {name: data, persistentVolumeClaim: {claimName: hbase}}
        - {name: native, hostPath: {path: /dev/shm/native, type: DirectoryOrCreate}}
        - {name: copy, emptyDir: {medium: Memory}}
`

func (w *walk) nativeCopy(t *testing.T) time.Duration {
	t.Helper()
	w.apply(t, nativeJob)
	w.awaitJob(t, "native")
	logs := w.rig.kubectl(t, "logs", "job/native")
	w.rig.kubectl(t, "delete", "job", "native", "--wait")
	if out, err := w.cluster.Node("node1").Command(t.Context(), "rmdir",
		"/dev/shm/native").CombinedOutput(); err != nil {
		t.Error(err, string(out))
	}
	return realTime(t, logs)
}

func (w *walk) copiedOnTheOtherNode(t *testing.T) {
	w.say("And on the other node, whose worker has none of it:")
	took := w.copyJob(t, "node2", true)
	t.Logf("copy on the other node: %v", took)
	if took > w.cold {
		t.Errorf("a copy from the other node's worker takes %v, longer than the first from the source", took)
	}
}

func (w *walk) deleted(t *testing.T) {
	w.say("## Gone again")
	begin := time.Now()
	out := w.rig.kubectl(t, "delete", "-f", examples, "--ignore-not-found")
	w.show("kubectl delete -f .", out)
	await(t, 2*time.Minute, "everything gone", func() error { return w.gone(t) })
	t.Logf("all gone after %v", time.Since(begin).Round(100*time.Millisecond))
	out = w.rig.kubectl(t, "get",
		"dataset,alluxioruntime,pods,pv,pvc,configmap,secret,services,statefulset,networkpolicy,pdb")
	w.show("kubectl get dataset,alluxioruntime,pods,pv,pvc,configmap,secret,services,statefulset,networkpolicy,pdb",
		out)
}

// gone tells what is left of all Datasets in the namespace default and on the nodes.
func (r *rig) gone(t *testing.T) error {
	t.Helper()
	out, err := r.cluster.Kubectl(t.Context(), "get", "-o", "name",
		"dataset,alluxioruntime,dataload,pods,pv,pvc,configmap,secret,services,statefulset,networkpolicy,pdb,endpointslices,jobs")
	if err != nil {
		return err
	}
	for _, name := range lines(out) {
		switch name {
		case "", "configmap/kube-root-ca.crt", "service/kubernetes", "endpointslice.discovery.k8s.io/kubernetes":
		default:
			return fmt.Errorf("%s is left", name)
		}
	}
	return r.bed.OnNodes(t.Context())
}

func lines(text string) []string {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func matches(text, expression string) error {
	if !regexp.MustCompile(expression).MatchString(text) {
		return fmt.Errorf("%q does not match %s", text, expression)
	}
	return nil
}
