package controller_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
`, endpoint)
}

// TestRealAlluxio has a real cluster where pods would run, from the mounts to a load, through a failover.
func TestRealAlluxio(t *testing.T) {
	s, c := server(t)
	servers := cluster.ForTest(t, cluster.Config{})
	ns := namespace(t, c)
	keys := gateway.NewKeys()
	specs := cached(source(t, "data", keys, map[string]int{"a/one": 3 << 20, "a/two": 1000, "three": 5<<20 + 17}))
	must(t, c.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "keys"}, Data: map[string][]byte{"id": []byte(keys.AccessKeyID), "key": []byte(keys.SecretAccessKey)},
	}))
	start(t, s, ns, func(config *controller.Config) {
		config.Addresses = func(types.NamespacedName, []string) []string {
			var addresses []string
			for _, m := range servers.Masters() {
				addresses = append(addresses, m.Address())
			}
			return addresses
		}
	})
	for _, o := range parse(t, specs) {
		o.SetNamespace(ns)
		must(t, c.Create(t.Context(), o))
	}
	status := func(what string, fits func(*v1alpha1.Dataset) bool) {
		t.Helper()
		eventually(t, what, func() string {
			d := dataset(t, c, ns, "hbase")
			if fits(d) {
				return ""
			}
			return fmt.Sprintf("it is %s, total %q, files %q, %v; %s; %s", d.Status.Phase, d.Status.UfsTotal, d.Status.FileNum, d.Status.CacheStates,
				condition(d.Status.Conditions, v1alpha1.Ready), condition(d.Status.Conditions, v1alpha1.Mounted))
		})
	}
	status("the Dataset is bound, and its sizes are known", func(d *v1alpha1.Dataset) bool {
		return d.Status.Phase == v1alpha1.Bound && d.Status.UfsTotal == "8.00MiB" && d.Status.FileNum == "3" &&
			d.Status.CacheStates[v1alpha1.Cached] == "0.00B" && d.Status.CacheStates[v1alpha1.CacheCapacity] == "512.00MiB" &&
			d.Status.CacheStates[v1alpha1.CachedPercentage] == "0.0%"
	})
	kubelet(t, c, ns, servers)

	leader, err := servers.Leader(t.Context())
	must(t, err)
	must(t, leader.Kill())
	time.Sleep(time.Second)
	must(t, c.Create(t.Context(), &v1alpha1.DataLoad{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "warm"}, Spec: v1alpha1.DataLoadSpec{
		Dataset: v1alpha1.TargetDataset{Name: "hbase"}, LoadMetadata: true, Target: []v1alpha1.TargetPath{{Path: "/hbase"}},
	}}))
	eventually(t, "the load is complete", func() string {
		l := &v1alpha1.DataLoad{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "warm"}, l))
		if l.Status.Phase == v1alpha1.LoadComplete && l.Status.Infos["percent"] == "100" && l.Status.Infos["filesLoaded"] == "3" {
			return ""
		}
		return fmt.Sprintf("it is %s, %v, %v", l.Status.Phase, l.Status.Infos, l.Status.Conditions)
	})
	status("all is cached, and the other leader tells so", func(d *v1alpha1.Dataset) bool {
		return d.Status.Phase == v1alpha1.Bound && d.Status.CacheStates[v1alpha1.CachedPercentage] == "100%" && d.Status.CacheStates[v1alpha1.Cached] == "8.00MiB"
	})

	// What is read shows in the ratios.
	if out, err := servers.Shell(t.Context(), "cat", "/hbase/a/two"); err != nil {
		t.Fatal(out, err)
	}
	status("the ratios tell", func(d *v1alpha1.Dataset) bool {
		s := d.Status.CacheStates
		return s[v1alpha1.CacheHitRatio] != "" && s[v1alpha1.LocalHitRatio] != "" && s[v1alpha1.RemoteHitRatio] != "" && s[v1alpha1.CacheThroughputRatio] != ""
	})
	drained(t, s, c, ns, servers)

	// A mount is added, one that was removed by hand comes back, and a mount by hand stays.
	d := dataset(t, c, ns, "hbase")
	more := d.Spec.Mounts[0].DeepCopy()
	more.Name, more.MountPoint = "part", "s3://more/"
	more.Options["alluxio.underfs.s3.endpoint"] = source(t, "more", keys, map[string]int{"four": 4})
	must(t, c.Patch(t.Context(), d, mergePatch(map[string]any{"spec": map[string]any{"mounts": []v1alpha1.Mount{d.Spec.Mounts[0], *more}}})))
	byHand := t.TempDir()
	for _, args := range [][]string{{"unmount", "/hbase"}, {"mount", "/mine", byHand}} {
		if out, err := servers.Shell(t.Context(), args...); err != nil {
			t.Fatal(out, err)
		}
	}
	eventually(t, "the mounts are what the spec says", func() string {
		out, err := servers.Shell(t.Context(), "mount")
		must(t, err)
		for _, path := range []string{" /hbase ", " /part ", " /mine "} {
			if !strings.Contains(out, path) {
				return out
			}
		}
		return ""
	})
	must(t, c.Patch(t.Context(), dataset(t, c, ns, "hbase"), mergePatch(map[string]any{"spec": map[string]any{"mounts": []v1alpha1.Mount{d.Spec.Mounts[0]}}})))
	eventually(t, "the mount is gone", func() string {
		out, err := servers.Shell(t.Context(), "mount")
		must(t, err)
		if strings.Contains(out, " /part ") || !strings.Contains(out, " /mine ") {
			return out
		}
		return ""
	})
}

// kubelet gives the pods the addresses of real servers, and waits until the controller has said that they do their work.
func kubelet(t *testing.T, c client.Client, ns string, alluxio *cluster.Cluster) {
	t.Helper()
	eventually(t, "the pods are marked", func() string {
		pods := &corev1.PodList{}
		must(t, c.List(t.Context(), pods, client.InNamespace(ns)))
		marked := 0
		var state []string
		for i := range pods.Items {
			pod := &pods.Items[i]
			number := int(pod.Name[len(pod.Name)-1] - '0')
			servers, gate := alluxio.Masters(), corev1.PodConditionType(objects.RaftRole)
			if pod.Labels["role"] == objects.RoleWorker {
				servers, gate = alluxio.Workers(), objects.Registered
			}
			if pod.Status.PodIP == "" {
				pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, servers[number].Host, []corev1.PodIP{{IP: servers[number].Host}}
				must(t, c.Status().Update(t.Context(), pod))
			}
			state = append(state, fmt.Sprintf("%s at %s: %v", pod.Name, pod.Status.PodIP, pod.Status.Conditions))
			for _, cond := range pod.Status.Conditions {
				if cond.Type == gate && cond.Status == corev1.ConditionTrue {
					marked++
				}
			}
		}
		if marked != 5 {
			return fmt.Sprintf("%d of 5: %s", marked, strings.Join(state, "; "))
		}
		return ""
	})
}

// drained scales the workers down to one: the pod of the other stays until what only it had is with the first.
func drained(t *testing.T, s *kube.Server, c client.Client, ns string, servers *cluster.Cluster) {
	t.Helper()
	if out, err := s.Kubectl(t.Context(), "scale", "alluxioruntime", "hbase", "--replicas=1", "-n", ns); err != nil {
		t.Fatal(out)
	}
	eventually(t, "the workers are drained and fewer", func() string {
		r := alluxio(t, c, ns, "hbase")
		line := condition(r.Status.Conditions, v1alpha1.Draining)
		set := &appsv1.StatefulSet{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase-worker"}, set))
		if strings.HasPrefix(line, "Draining=False Drained 1 of 2 workers leave; ") && strings.HasSuffix(line, "that only they had are with others") && *set.Spec.Replicas == 1 {
			t.Log(line)
			return ""
		}
		return fmt.Sprintf("%s, and there are %d", line, *set.Spec.Replicas)
	})
	// The worker that leaves has nothing any more, the other has all.
	stays, leaves := servers.Workers()[0].Host, servers.Workers()[1].Host
	for _, file := range []string{"/hbase/a/one", "/hbase/a/two", "/hbase/three"} {
		eventually(t, "all is with the worker that stays", func() string {
			out, err := servers.Shell(t.Context(), "location", file)
			must(t, err)
			if !strings.Contains(out, stays) || strings.Contains(out, leaves) {
				return out
			}
			return ""
		})
	}
	eventually(t, "the sum says so", func() string {
		if got := dataset(t, c, ns, "hbase").Status.CacheStates[v1alpha1.Cached]; got != "8.00MiB" {
			return "cached is " + got
		}
		return ""
	})
}
