package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/pattern"
)

// testShown has pods of one node that differ in what their volumes are to show: groups, PersistentVolumes of one
// handle, keys that are rotated. And it asks the tools on that node, and its kubelet.
func testShown(t *testing.T) {
	r := &rest{get(t)}
	r.inOrder(t, []step{
		{"Groups", r.groups},
		{"TraceAlone", r.traceAlone},
		{"Statistics", r.statistics},
		{"Doctor", r.doctor},
		{"Status", r.status},
		{"TraceAloneGone", r.traceAloneGone},
		{"Trace", r.trace},
		{"Sick", r.sick},
		{"OneHandle", r.oneHandle},
		{"RotatedSecret", r.rotatedSecret},
		{"Deleted", r.deleted},
	})
}

// groups has pods with different groups and with none read a Dataset on one node, in each order; the last comes
// when all run, and one has a directory of the volume alone.
func (r *rest) groups(t *testing.T) {
	r.apply(t, fmt.Sprintf(sharedDataset, "one", 1))
	r.bound(t, "one")
	pods := map[string]string{
		"none":  "runAsUser: 1003",
		"g2000": "runAsUser: 1000, fsGroup: 2000",
		"g3000": "runAsUser: 1001, fsGroup: 3000",
		"more":  "runAsUser: 1002, fsGroup: 2000",
	}
	for _, order := range [][]string{{"none", "g2000", "g3000", "more"}, {"g2000", "none", "more", "g3000"}} {
		for _, name := range order {
			const reads = "sha256sum /one/one/* && stat -c %g /one/one/c.txt && sleep 600"
			r.apply(t, user(name, "node1", reads, pods[name], "one"))
		}
		for _, name := range order {
			took := r.says(t, time.Minute, "Running", "get", "pod", name, "-o", "jsonpath={.status.phase}")
			t.Logf("%s runs after %v", name, took.Round(100*time.Millisecond))
			_, group, _ := strings.Cut(pods[name], "fsGroup: ")
			await(t, time.Minute, name+" reads", func() error {
				logs, err := r.cluster.Kubectl(t.Context(), "logs", name)
				if err == nil && !strings.HasSuffix(logs, "\n"+cmp.Or(group, "0")+"\n") {
					err = fmt.Errorf("it says %q", logs)
				}
				return err
			})
			hasSmall(t, r.kubectl(t, "logs", name), "/one/one/")
		}
		if order[0] == "none" {
			r.kubectl(t, "delete", "pod", "none", "g2000", "g3000", "more", "--wait")
		}
	}
	part := strings.Replace(user("part", "node1", "cat /one/c.txt | wc -c", "runAsUser: 1004, fsGroup: 4000", "one"),
		"mountPath: /one}", "mountPath: /one, subPath: one}", 1)
	r.apply(t, part)
	if got := strings.TrimSpace(r.ran(t, "part")); got != strconv.FormatInt(smallFiles["c.txt"], 10) {
		t.Errorf("a pod with another group and a subPath reads %q bytes", got)
	}
}

// oneHandle has two PersistentVolumes of one handle: each pod reads its own.
func (r *rest) oneHandle(t *testing.T) {
	for _, tenant := range []struct{ name, dir string }{{"ta", "one"}, {"tb", "two"}} {
		t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "delete", "pv", "of-"+tenant.name) })
		r.namespaced(t, tenant.name)
		source := "http://" + mirrorName + "/small/" + tenant.dir + "/"
		r.apply(t, staticVolume("of-"+tenant.name, tenant.name, "same", source, ""))
		r.apply(t, user("p", "node1", "sha256sum /c/* && sleep 600", "", "c"), "-n", tenant.name)
		r.says(t, time.Minute, "Running", "get", "pod", "p", "-n", tenant.name, "-o", "jsonpath={.status.phase}")
	}
	for _, tenant := range []struct{ name, dir string }{{"ta", "one"}, {"tb", "two"}} {
		source := r.kubectl(t, "exec", "-n", tenant.name, "p", "--", "grep", " /c ", "/proc/self/mounts")
		if !strings.HasPrefix(source, "http://"+mirrorName+"/small/"+tenant.dir+"/ ") {
			t.Errorf("the pod of %s has %s", tenant.name, source)
		}
	}
}

// staticVolume is a PersistentVolume, and a claim c that is bound to it; secrets are lines that name some.
func staticVolume(name, namespace, handle, source, secrets string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadOnlyMany]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: %[2]s, name: c}
  csi:
    driver: csi.millrace.io
    volumeHandle: %[3]s
    volumeAttributes: {source: %[4]q, revalidate: 1s}
%[5]s
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: %[2]s}
spec: {accessModes: [ReadOnlyMany], resources: {requests: {storage: 1Gi}}, storageClassName: "", volumeName: %[1]s}
`, name, namespace, handle, source, secrets)
}

// rotatedSecret has a source that takes another password, which the Secret has then, too. Of two volumes one names the
// Secret once, as users write it, and one twice and asks the source each second. A new pod reads, and the old ones what
// is cached before that and all after it.
func (r *rest) rotatedSecret(t *testing.T) {
	var password atomic.Value
	password.Store("pw1")
	source := r.locked(t, &password)
	once, err := os.ReadFile("testdata/rotated-secret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "delete", "pv", "rot", "twice") })
	r.namespaced(t, "rot")
	r.apply(t, string(once))
	const secret = "SecretRef: {name: web, namespace: rot}"
	twice := "    nodeStage" + secret + "\n    nodePublish" + secret
	r.apply(t, staticVolume("twice", "rot", "twice", source, twice))
	claims := []string{"rot", "c"}
	for _, claim := range claims {
		r.apply(t, user("old-"+claim, "node1", "sleep 600", "runAsUser: 1000, fsGroup: 2000", claim), "-n", "rot")
	}
	old := func(file string) error {
		return errors.Join(r.sums(t, "rot1", "/data/"+file),
			r.sums(t, "old-rot", "/rot/"+file), r.sums(t, "old-c", "/c/"+file))
	}
	await(t, time.Minute, "the pods read", func() error { return old("a.bin") })
	password.Store("pw2")
	time.Sleep(2 * time.Second)
	if err := old("a.bin"); err != nil {
		t.Error("what is cached cannot be read while the keys are wrong:", err)
	}
	r.apply(t, strings.Replace(string(once), "pass: pw1", "pass: pw2", 1))
	for _, claim := range claims {
		begin := time.Now()
		r.apply(t, user("new-"+claim, "node1", "sleep 600", "runAsUser: 1001", claim), "-n", "rot")
		await(t, 30*time.Second, "a new pod reads", func() error { return r.sums(t, "new-"+claim, "/"+claim+"/b.bin") })
		took := time.Since(begin).Round(100 * time.Millisecond)
		t.Logf("a new pod reads %s %v after the Secret was rotated", claim, took)
		await(t, 10*time.Second, "an old pod reads what was not cached", func() error {
			return r.sums(t, "old-"+claim, "/"+claim+"/c.bin")
		})
	}
	await(t, 10*time.Second, "all old pods read", func() error { return old("README.txt") })
}

// namespaced makes a namespace that goes with the test, and waits until it may have pods.
func (r *rest) namespaced(t *testing.T, name string) {
	t.Helper()
	r.kubectl(t, "create", "namespace", name)
	t.Cleanup(func() { _, _ = r.cluster.Kubectl(r.ctx, "delete", "namespace", name, "--timeout=120s") })
	await(t, time.Minute, "its service account", func() error {
		_, err := r.cluster.Kubectl(t.Context(), "get", "serviceaccount", "default", "-n", name)
		return err
	})
}

// sums has a pod of the namespace rot read a file, which must be the one that the web server has.
func (r *rest) sums(t *testing.T, pod, path string) error {
	t.Helper()
	out, err := r.cluster.Kubectl(t.Context(), "exec", "-n", "rot", pod, "--", "sha256sum", path)
	name := filepath.Base(path)
	if err == nil && !strings.HasPrefix(out, sumOf(t, name, lockedFiles[name])) {
		err = fmt.Errorf("%s reads %q", pod, out)
	}
	return err
}

// lockedFiles are those of the web server that asks for a password.
var lockedFiles = map[string]int64{"README.txt": 12345, "a.bin": 5<<20 + 17, "b.bin": 3 << 20, "c.bin": 1 << 20}

// locked starts a web server that asks for a password, where testdata/rotated-secret.yaml has it, and gives its URL.
func (r *rest) locked(t *testing.T, password *atomic.Value) string {
	t.Helper()
	const at, address = "apache/zookeeper/stable", kubenodes.ControlPlane + ":8002"
	root := filepath.Join(r.htdocs(), "locked")
	if err := os.MkdirAll(filepath.Join(root, at), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range lockedFiles {
		if err := pattern.Write(filepath.Join(root, at, name), name, size); err != nil {
			t.Fatal(err)
		}
	}
	l, err := r.cluster.Control().Listen(r.ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir(root))
	handler := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if user, pass, _ := q.BasicAuth(); user != "u" || pass != password.Load() {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, q)
	})
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: handler}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Shutdown(context.WithoutCancel(t.Context())) })
	return "http://" + address + "/" + at + "/"
}
