package reconcile

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/sanity/fakemaster"
	"millrace.io/millrace/sanity/pace"
)

// alluxio is a rig whose Dataset has a master that answers.
type alluxio struct {
	*rig
	master *fakemaster.Master
	news   chan types.NamespacedName
}

// newAlluxio is a Dataset of S3, of which a master and two workers run.
func newAlluxio(t *testing.T, there ...client.Object) *alluxio {
	t.Helper()
	d, o := newDataset("s3://bucket/a")
	all := append([]client.Object{
		d, o, newPod(objects.RoleMaster, 0), newPod(objects.RoleWorker, 0), newPod(objects.RoleWorker, 1),
	}, there...)
	a := &alluxio{rig: newRig(t, all...), news: make(chan types.NamespacedName, 100)}
	var err error
	a.master, err = fakemaster.Start()
	a.must(err)
	t.Cleanup(func() { _ = a.master.Close() })
	a.register(0, 1)
	a.r.Addresses = func(types.NamespacedName, []string) []string { return []string{a.master.Address()} }
	a.r.Clusters.Fast, a.r.Clusters.Slow = 10*time.Millisecond, 10*time.Millisecond
	a.r.Clusters.Notify = func(key types.NamespacedName) { a.news <- key }
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- a.r.Clusters.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return a
}

// register has the master know the workers of these pods.
func (a *alluxio) register(ordinals ...int) {
	var workers []fakemaster.Worker
	for _, n := range ordinals {
		workers = append(workers, fakemaster.Worker{
			Host: newPod(objects.RoleWorker, n).Status.PodIP, Port: 29999, Capacity: 1 << 30, Used: 1 << 20,
		})
	}
	a.master.SetWorkers(workers...)
}

// until looks after each piece of news, until what is waited for is so.
func (a *alluxio) until(what string, is func() bool) {
	a.t.Helper()
	limit := time.After(pace.Limit(time.Minute))
	for {
		a.look()
		if is() {
			return
		}
		select {
		case <-a.news:
		case <-limit:
			a.t.Fatalf("%s: %s, %s", what, a.condition("Ready"), a.condition("Deleting"))
		}
	}
}

// bound reports whether the Dataset is.
func (a *alluxio) bound() bool { return a.dataset().Status.Phase == v1alpha1.Bound }

// TestBound has a Dataset be ready when its master leads, its mounts are made, a worker has registered and its source
// answers. Pods that do their work are marked, and nothing is written after that.
func TestBound(t *testing.T) {
	a := newAlluxio(t)
	a.until("it is bound", a.bound)
	a.settle()
	a.quiet()
	a.says("Ready", "=True DatasetReady: ", "the data is served by")
	a.says("Mounted", "=True Mounted: ")
	if did := strings.Join(a.master.Did(), ", "); did != "mount /a" {
		t.Errorf("the master was asked for %q", did)
	}
	d, o := a.dataset(), a.runtime()
	if s := d.Status; s.HCFSStatus == nil || len(s.Runtimes) != 1 || len(s.Mounts) != 1 || o.Status.SetupDuration == "" {
		t.Errorf("the status is %+v", d.Status)
	}
	if cached := d.Status.CacheStates[v1alpha1.Cached]; cached != "2.00MiB" {
		t.Errorf("%s are cached", cached)
	}
	for name, gate := range map[string]corev1.PodConditionType{
		"hbase-master-0": objects.RaftRole, "hbase-worker-0": objects.Registered, "hbase-worker-1": objects.Registered,
	} {
		pod := &corev1.Pod{}
		if a.there(pod, key.Namespace, name); conditionOf(pod, gate) != corev1.ConditionTrue {
			t.Errorf("%s is not marked by %s: %+v", name, gate, pod.Status.Conditions)
		}
	}
}

// TestWorkersGone says that no worker is there when the master knows none, and marks no pod as registered.
func TestWorkersGone(t *testing.T) {
	a := newAlluxio(t)
	a.until("it is bound", a.bound)
	a.register(1)
	a.r.Clusters.Soon(key)
	a.until("a pod is not marked", func() bool {
		pod := &corev1.Pod{}
		a.there(pod, key.Namespace, "hbase-worker-0")
		return conditionOf(pod, objects.Registered) == corev1.ConditionFalse
	})
	a.says("Ready", "=True DatasetReady: ")
	a.register()
	a.r.Clusters.Soon(key)
	a.until("no worker is there", func() bool { return strings.Contains(a.condition("Ready"), "NoWorker") })
	if phase := a.dataset().Status.Phase; phase != v1alpha1.Bound {
		t.Errorf("at once it is %s", phase)
	}
}

// TestEmptiedAtTheEnd has workers drop what they hold before their StatefulSet is deleted, since blocks in a directory
// of a node would stay.
func TestEmptiedAtTheEnd(t *testing.T) {
	a := newAlluxio(t)
	a.until("it is bound", a.bound)
	a.settle()
	a.master.Did()
	a.must(a.Delete(t.Context(), a.dataset()))
	freed := false
	a.until("it is gone", func() bool {
		for _, did := range a.master.Did() {
			freed = freed || did == "free /"
			if strings.HasPrefix(did, "unmount") {
				t.Errorf("the master was asked for %q", did)
			}
		}
		there := slices.Contains(a.left(), "hbase-worker")
		if !freed && !there {
			t.Error("the workers are gone before they were emptied")
		}
		if !strings.Contains(a.condition("Deleting"), "Emptying") {
			// A real API server tells of each object that has gone.
			a.news <- key
		}
		return !a.there(&v1alpha1.Dataset{}, key.Namespace, key.Name)
	})
	if !freed {
		t.Error("nothing was dropped")
	}
}
