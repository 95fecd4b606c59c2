package controller_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/controller"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/kube"
)

// source shows a directory with files as an S3 bucket, and returns where it is served.
func source(t *testing.T, bucket string, keys gateway.Keys, sizes map[string]int) (endpoint string) {
	t.Helper()
	dir := t.TempDir()
	for name, size := range sizes {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	store, err := ufs.Open(t.Context(), dir, ufs.Options{})
	must(t, err)
	g, err := gateway.New(gateway.Config{Store: store, Bucket: bucket, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, l, nil) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
		must(t, store.Close())
	})
	return "http://" + l.Addr().String()
}

// cached are the specs of a Dataset that mounts the bucket data at an endpoint.
func cached(endpoint string) string {
	return fmt.Sprintf(`
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: hbase}
spec:
  mounts:
  - mountPoint: s3://data/
    name: hbase
    options:
      alluxio.underfs.s3.endpoint: %s
      alluxio.underfs.s3.endpoint.region: us-east-1
      alluxio.underfs.s3.disable.dns.buckets: "true"
      alluxio.underfs.s3.inherit.acl: "false"
      alluxio.underfs.object.store.breadcrumbs.enabled: "false"
    encryptOptions:
    - {name: s3a.accessKeyId, valueFrom: {secretKeyRef: {name: keys, key: id}}}
    - {name: s3a.secretKey, valueFrom: {secretKeyRef: {name: keys, key: key}}}
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: hbase}
spec:
  replicas: 2
  tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: 256Mi}]}
  master: {replicas: 3}
  data: {pin: true}
`, endpoint)
}

// actual is a Dataset whose Alluxio is a real cluster, where pods would run.
type actual struct {
	t       *testing.T
	api     *kube.Server
	c       client.Client
	ns      string
	servers *cluster.Cluster
	keys    gateway.Keys
}

// newActual starts it all, and waits until the Dataset is bound.
func newActual(t *testing.T) *actual {
	t.Helper()
	s, c := server(t)
	r := &actual{
		t: t, api: s, c: c, servers: cluster.ForTest(t, cluster.Config{}), ns: namespace(t, c),
		keys: gateway.NewKeys(),
	}
	specs := cached(source(t, "data", r.keys, map[string]int{"a/one": 3 << 20, "a/two": 1000, "three": 5<<20 + 17}))
	must(t, c.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, Name: "keys"},
		Data:       map[string][]byte{"id": []byte(r.keys.AccessKeyID), "key": []byte(r.keys.SecretAccessKey)},
	}))
	start(t, s, r.ns, func(config *controller.Config) {
		config.SecretAge = 2 * time.Second
		config.Addresses = func(types.NamespacedName, []string) []string {
			var addresses []string
			for _, m := range r.servers.Masters() {
				addresses = append(addresses, m.Address())
			}
			return addresses
		}
	})
	for _, o := range parse(t, specs) {
		o.SetNamespace(r.ns)
		must(t, c.Create(t.Context(), o))
	}
	r.kubelet()
	return r
}

// status waits until the Dataset's status fits.
func (r *actual) status(what string, fits func(*v1alpha1.Dataset) bool) {
	r.t.Helper()
	eventually(r.t, what, func() string {
		d := dataset(r.t, r.c, r.ns, "hbase")
		if fits(d) {
			return ""
		}
		return fmt.Sprintf("it is %s, total %q, files %q, %v; %s; %s", d.Status.Phase, d.Status.UfsTotal,
			d.Status.FileNum, d.Status.CacheStates,
			condition(d.Status.Conditions, v1alpha1.Ready), condition(d.Status.Conditions, v1alpha1.Mounted))
	})
}

// shell runs Alluxio's own.
func (r *actual) shell(args ...string) string {
	r.t.Helper()
	out, err := r.servers.Shell(r.t.Context(), args...)
	if err != nil {
		r.t.Fatal(out, err)
	}
	return out
}

// kubelet plays the kubelets of the nodes until the test ends: it gives pods the addresses of real servers, says that
// their containers run, that they are ready where the controller has said that they do their work, and takes away those
// that are deleted.
func (r *actual) kubelet() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			pods := &corev1.PodList{}
			if err := r.c.List(ctx, pods, client.InNamespace(r.ns)); err == nil {
				for i := range pods.Items {
					r.tend(ctx, &pods.Items[i])
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// tend does for one pod what its kubelet would. What fails is tried again.
func (r *actual) tend(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		_ = r.c.Delete(ctx, pod, client.GracePeriodSeconds(0), client.Preconditions{UID: &pod.UID})
		return
	}
	servers, gate := r.servers.Masters(), corev1.PodConditionType(objects.RaftRole)
	if pod.Labels["role"] == objects.RoleWorker {
		servers, gate = r.servers.Workers(), objects.Registered
	}
	before := pod.DeepCopy()
	number := int(pod.Name[len(pod.Name)-1] - '0')
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, servers[number].Host,
		[]corev1.PodIP{{IP: servers[number].Host}}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: podCondition(pod, gate)}
	if podCondition(pod, corev1.PodReady) != ready.Status {
		pod.Status.Conditions = append(slices.DeleteFunc(pod.Status.Conditions,
			func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady }), ready)
	}
	if !equality.Semantic.DeepEqual(before.Status, pod.Status) {
		_ = r.c.Status().Update(ctx, pod)
	}
}

// podCondition is a pod's condition; one that is not there is false.
func podCondition(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return corev1.ConditionFalse
}
