package e2e

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
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

// groups has pods with different groups and with none read a Dataset on one node, whoever came first; the last comes
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
		r.kubectl(t, "create", "namespace", tenant.name)
		t.Cleanup(func() {
			_, _ = r.cluster.Kubectl(r.ctx, "delete", "namespace", tenant.name, "--timeout=120s")
			_, _ = r.cluster.Kubectl(r.ctx, "delete", "pv", "of-"+tenant.name)
		})
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

// rotatedSecret has a source that takes another password, which the Secret has then, too: a new pod reads, and the old
// one what is cached before that and all after it.
func (r *rest) rotatedSecret(t *testing.T) {
	var password atomic.Value
	password.Store("one")
	address := r.locked(t, &password)
	r.kubectl(t, "create", "namespace", "rot")
	t.Cleanup(func() {
		_, _ = r.cluster.Kubectl(r.ctx, "delete", "namespace", "rot", "--timeout=120s")
		_, _ = r.cluster.Kubectl(r.ctx, "delete", "pv", "rot")
	})
	secret := func() string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Secret, metadata: {name: web, namespace: rot},
  stringData: {user: u, pass: %s}}`, password.Load())
	}
	r.apply(t, secret())
	const twice = "    nodeStageSecretRef: {name: web, namespace: rot}\n    nodePublishSecretRef: {name: web, namespace: rot}"
	r.apply(t, staticVolume("rot", "rot", "rot", "http://"+address+"/", twice))
	as := "runAsUser: 1000, fsGroup: 2000"
	r.apply(t, user("old", "node1", "cat /c/a.bin >/dev/null && sleep 600", as, "c"), "-n", "rot")
	r.says(t, time.Minute, "Running", "get", "pod", "old", "-n", "rot", "-o", "jsonpath={.status.phase}")
	sum := func(file string) error {
		out, err := r.cluster.Kubectl(t.Context(), "exec", "-n", "rot", "old", "--", "sha256sum", "/c/"+file)
		if err == nil && !strings.HasPrefix(out, sumOf(t, file, smallFiles[file])) {
			err = fmt.Errorf("it reads %q", out)
		}
		return err
	}
	await(t, time.Minute, "the old pod reads", func() error { return sum("a.bin") })
	password.Store("two")
	time.Sleep(2 * time.Second)
	if err := sum("a.bin"); err != nil {
		t.Error("what is cached cannot be read while the keys are wrong:", err)
	}
	r.apply(t, secret())
	begin := time.Now()
	r.apply(t, user("new", "node1", "sha256sum /c/*", "runAsUser: 1001", "c"), "-n", "rot")
	await(t, 30*time.Second, "a new pod reads", func() error {
		out, err := r.cluster.Kubectl(t.Context(), "logs", "-n", "rot", "new")
		if err == nil && !strings.Contains(out, sumOf(t, "b.bin", smallFiles["b.bin"])) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	t.Logf("a new pod reads %v after the Secret was rotated", time.Since(begin).Round(100*time.Millisecond))
	await(t, 10*time.Second, "the old pod reads what was not cached", func() error { return sum("b.bin") })
}

// locked starts a web server that asks for a password, and gives its address.
func (r *rest) locked(t *testing.T, password *atomic.Value) string {
	t.Helper()
	const address = mirrorAddress + ":8002"
	l, err := r.mirror.Listen(r.ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir(r.htdocs() + "/small/one"))
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
	return address
}
