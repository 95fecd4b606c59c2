package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
)

// TestRealAlluxio has a real cluster where pods would run, from the mounts to a load, through a failover, to its end.
func TestRealAlluxio(t *testing.T) {
	t.Parallel()
	r := newActual(t)
	for _, step := range []struct {
		name string
		do   func(*actual)
	}{
		{"mounted and measured", (*actual).bound},
		{"pods are marked", (*actual).marked},
		{"rolled out, the leader last", (*actual).rolled},
		{"loaded after a failover", (*actual).loaded},
		{"loads after each other and by a schedule", (*actual).scheduled},
		{"read", (*actual).read},
		{"drained", (*actual).drained},
		{"a secret is rotated", (*actual).rotated},
		{"mounts change", (*actual).remounted},
		{"deleted, and the cache is empty", (*actual).deleted},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			inner := *r
			inner.t = t
			step.do(&inner)
		}) {
			return
		}
	}
}

func (r *actual) bound() {
	r.status("the Dataset is bound, and its sizes are known", func(d *v1alpha1.Dataset) bool {
		return d.Status.Phase == v1alpha1.Bound && d.Status.UfsTotal == "8.00MiB" && d.Status.FileNum == "3" &&
			d.Status.CacheStates[v1alpha1.Cached] == "0.00B" &&
			d.Status.CacheStates[v1alpha1.CacheCapacity] == "512.00MiB" &&
			d.Status.CacheStates[v1alpha1.CachedPercentage] == "0.0%"
	})
}

func (r *actual) marked() {
	eventually(r.t, "all pods are ready", func() string {
		pods := &corev1.PodList{}
		must(r.t, r.c.List(r.t.Context(), pods, client.InNamespace(r.ns)))
		var state []string
		ready := 0
		for i := range pods.Items {
			if podCondition(&pods.Items[i], corev1.PodReady) == corev1.ConditionTrue {
				ready++
			}
			state = append(state, fmt.Sprintf("%s: %v", pods.Items[i].Name, pods.Items[i].Status.Conditions))
		}
		if ready != 5 {
			return strings.Join(state, "; ")
		}
		return ""
	})
	eventually(r.t, "the runtime says so", func() string {
		s := alluxio(r.t, r.c, r.ns, "hbase").Status
		if s.MasterPhase != v1alpha1.ReadyPhase || s.WorkerPhase != v1alpha1.ReadyPhase || s.MasterNumberReady != 3 ||
			s.WorkerNumberReady != 2 || s.SetupDuration == "" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

// leadingPod is the pod that stands for the leading master.
func (r *actual) leadingPod() string {
	r.t.Helper()
	leader, err := r.servers.Leader(r.t.Context())
	must(r.t, err)
	return fmt.Sprintf("hbase-master-%d", slices.Index(r.servers.Masters(), leader))
}

// rolled changes image and resources, and looks in which order pods are replaced, and that never two are away.
func (r *actual) rolled() {
	leader := r.leadingPod()
	watched, ok := r.c.(client.WithWatch)
	if !ok {
		r.t.Fatal("the client does not watch")
	}
	w, err := watched.Watch(r.t.Context(), &corev1.PodList{}, client.InNamespace(r.ns))
	must(r.t, err)
	defer w.Stop()
	must(r.t, r.c.Patch(r.t.Context(), alluxio(r.t, r.c, r.ns, "hbase"),
		mergePatch(map[string]any{"spec": map[string]any{
			"alluxioVersion": map[string]any{"imageTag": "2.9.6"},
			"master":         map[string]any{"resources": map[string]any{"requests": map[string]any{"cpu": "200m"}}},
		}})))
	ready := map[string]bool{}
	var order []string
	deadline := time.After(patience)
	for len(order) < 5 || len(ready) < 5 || !allReady(ready) {
		var event watch.Event
		select {
		case event = <-w.ResultChan():
		case <-deadline:
			r.t.Fatalf("replaced so far: %v", order)
		}
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			r.t.Fatalf("%v", event)
		}
		before := ready[pod.Name]
		ready[pod.Name] = event.Type != watch.Deleted && pod.DeletionTimestamp == nil &&
			podCondition(pod, corev1.PodReady) == corev1.ConditionTrue
		if before && !ready[pod.Name] {
			order = append(order, pod.Name)
		}
		away := 0
		for _, is := range ready {
			if !is {
				away++
			}
		}
		if len(ready) == 5 && away > 1 {
			r.t.Errorf("%d pods are away at once: %v", away, ready)
		}
	}
	kinds := make([]string, len(order))
	for i, name := range order {
		kinds[i] = strings.Split(name, "-")[1]
	}
	if strings.Join(kinds, " ") != "master master worker worker master" || order[4] != leader {
		r.t.Errorf("the pods were replaced in the order %v, and %s leads", order, leader)
	}
	for _, name := range order {
		pod := &corev1.Pod{}
		must(r.t, r.c.Get(r.t.Context(), client.ObjectKey{Namespace: r.ns, Name: name}, pod))
		if image := pod.Spec.Containers[0].Image; image != "alluxio/alluxio:2.9.6" {
			r.t.Errorf("%s has the image %s", name, image)
		}
	}
}

func allReady(ready map[string]bool) bool {
	for _, is := range ready {
		if !is {
			return false
		}
	}
	return true
}

// load creates a load.
func (r *actual) load(name string, spec v1alpha1.DataLoadSpec) {
	r.t.Helper()
	spec.Dataset.Name = "hbase"
	must(r.t, r.c.Create(r.t.Context(), &v1alpha1.DataLoad{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, Name: name},
		Spec:       spec,
	}))
}

// owned waits for a load to belong to the Dataset, so that Kubernetes deletes it with that.
func (r *actual) owned(name string) {
	r.t.Helper()
	eventually(r.t, "the load belongs to its Dataset", func() string {
		l, d := &v1alpha1.DataLoad{}, &v1alpha1.Dataset{}
		must(r.t, r.c.Get(r.t.Context(), client.ObjectKey{Namespace: r.ns, Name: name}, l))
		must(r.t, r.c.Get(r.t.Context(), client.ObjectKey{Namespace: r.ns, Name: l.Spec.Dataset.Name}, d))
		if len(l.OwnerReferences) == 1 && l.OwnerReferences[0].UID == d.UID && l.OwnerReferences[0].Kind == "Dataset" {
			return ""
		}
		return fmt.Sprintf("its owners are %+v", l.OwnerReferences)
	})
}

// loadStatus waits until a load's status fits.
func (r *actual) loadStatus(name, what string, fits func(*v1alpha1.DataLoadStatus) bool) {
	r.t.Helper()
	eventually(r.t, what, func() string {
		l := &v1alpha1.DataLoad{}
		must(r.t, r.c.Get(r.t.Context(), client.ObjectKey{Namespace: r.ns, Name: name}, l))
		if fits(&l.Status) {
			return ""
		}
		return fmt.Sprintf("it is %s, %v, %v", l.Status.Phase, l.Status.Infos, l.Status.Conditions)
	})
}

func (r *actual) loaded() {
	leader, err := r.servers.Leader(r.t.Context())
	must(r.t, err)
	must(r.t, leader.Kill())
	time.Sleep(time.Second)
	r.load("after", v1alpha1.DataLoadSpec{RunAfter: &v1alpha1.OperationRef{Kind: "DataLoad", Name: "warm"}})
	r.loadStatus("after", "the load waits for the other", func(s *v1alpha1.DataLoadStatus) bool {
		return s.Phase == v1alpha1.LoadPending && s.WaitingFor.OperationComplete != nil &&
			!*s.WaitingFor.OperationComplete &&
			strings.Contains(condition(s.Conditions, "Waiting"), "waits for the DataLoad warm")
	})
	r.load("warm", v1alpha1.DataLoadSpec{LoadMetadata: true, Target: []v1alpha1.TargetPath{{Path: "/hbase"}}})
	r.owned("warm")
	r.loadStatus("warm", "the load is complete", func(s *v1alpha1.DataLoadStatus) bool {
		return s.Phase == v1alpha1.LoadComplete && s.Infos["percent"] == "100" && s.Infos["filesLoaded"] == "3" &&
			s.Infos["bytesLoaded"] == "8389625"
	})
	r.status("all is cached, and the other leader tells so", func(d *v1alpha1.Dataset) bool {
		return d.Status.Phase == v1alpha1.Bound && d.Status.CacheStates[v1alpha1.CachedPercentage] == "100.0%" &&
			d.Status.CacheStates[v1alpha1.Cached] == "8.00MiB"
	})
	conn := r.connect()
	for _, path := range []string{"/hbase", "/hbase/a/one"} {
		info, err := conn.Status(r.t.Context(), path, rpc.NeverSync)
		must(r.t, err)
		if !info.GetPinned() {
			r.t.Errorf("%s is not pinned", path)
		}
	}
}

// connect speaks to the masters as the controller does.
func (r *actual) connect() *rpc.Cluster {
	r.t.Helper()
	var addresses []string
	for _, m := range r.servers.Masters() {
		addresses = append(addresses, m.Address())
	}
	conn, err := rpc.Connect(rpc.Config{Masters: addresses, Security: rpc.Security{User: "root"}})
	must(r.t, err)
	r.t.Cleanup(conn.Release)
	return conn
}

func (r *actual) scheduled() {
	r.loadStatus("after", "the load that waited is complete", func(s *v1alpha1.DataLoadStatus) bool {
		return s.Phase == v1alpha1.LoadComplete && *s.WaitingFor.OperationComplete
	})
	r.load("often", v1alpha1.DataLoadSpec{Policy: v1alpha1.Cron, Schedule: "@every 2s"})
	var first time.Time
	r.loadStatus("often", "the load has run by its schedule", func(s *v1alpha1.DataLoadStatus) bool {
		if s.LastSuccessfulTime == nil || s.LastScheduleTime == nil {
			return false
		}
		first = s.LastScheduleTime.Time
		return true
	})
	r.loadStatus("often", "it runs again", func(s *v1alpha1.DataLoadStatus) bool {
		return s.LastScheduleTime.After(first) && s.LastSuccessfulTime.After(first)
	})
	must(r.t, r.c.Delete(r.t.Context(), &v1alpha1.DataLoad{ObjectMeta: metav1.ObjectMeta{
		Namespace: r.ns,
		Name:      "often",
	}}))
	second := int32(1)
	r.load("brief", v1alpha1.DataLoadSpec{
		TTLSecondsAfterFinished: &second,
		Target:                  []v1alpha1.TargetPath{{Path: "/hbase/three", Replicas: 2}},
	})
	eventually(r.t, "the load is gone after its time", func() string {
		l := &v1alpha1.DataLoad{}
		if err := r.c.Get(r.t.Context(), client.ObjectKey{Namespace: r.ns, Name: "brief"}, l); err == nil {
			return fmt.Sprintf("it is %s, %v", l.Status.Phase, l.Status.Conditions)
		}
		return ""
	})
	for _, w := range r.servers.Workers() {
		if out := r.shell("location", "/hbase/three"); !strings.Contains(out, w.Host) {
			r.t.Errorf("%s has no copy: %s", w.Name, out)
		}
	}
	r.load("nowhere", v1alpha1.DataLoadSpec{Target: []v1alpha1.TargetPath{{Path: "/hbase/nothing"}}})
	r.loadStatus("nowhere", "the load of what is not there fails", func(s *v1alpha1.DataLoadStatus) bool {
		return s.Phase == v1alpha1.LoadFailed && strings.Contains(condition(s.Conditions, v1alpha1.Failed),
			"/hbase/nothing")
	})
}

// read shows in the ratios.
func (r *actual) read() {
	r.shell("cat", "/hbase/a/two")
	r.status("the ratios tell", func(d *v1alpha1.Dataset) bool {
		s := d.Status.CacheStates
		return s[v1alpha1.CacheHitRatio] != "" && s[v1alpha1.LocalHitRatio] != "" && s[v1alpha1.RemoteHitRatio] != "" &&
			s[v1alpha1.CacheThroughputRatio] != ""
	})
}

// drained scales the workers down to one: the pod of the other stays until what only it had is with the first.
func (r *actual) drained() {
	t := r.t
	if out, err := r.api.Kubectl(t.Context(), "scale", "alluxioruntime", "hbase", "--replicas=1", "-n",
		r.ns); err != nil {
		t.Fatal(out)
	}
	eventually(t, "the workers are drained and fewer", func() string {
		line := condition(alluxio(t, r.c, r.ns, "hbase").Status.Conditions, v1alpha1.Draining)
		set := &appsv1.StatefulSet{}
		must(t, r.c.Get(t.Context(), client.ObjectKey{Namespace: r.ns, Name: "hbase-worker"}, set))
		if strings.HasPrefix(line, "Draining=False Drained 1 of 2 workers leave; ") &&
			strings.HasSuffix(line, "that only they had are with others") && *set.Spec.Replicas == 1 {
			t.Log(line)
			return ""
		}
		return fmt.Sprintf("%s, and there are %d", line, *set.Spec.Replicas)
	})
	// The worker that leaves has nothing any more, the other has all.
	stays, leaves := r.servers.Workers()[0].Host, r.servers.Workers()[1].Host
	for _, file := range []string{"/hbase/a/one", "/hbase/a/two", "/hbase/three"} {
		eventually(t, "all is with the worker that stays", func() string {
			if out := r.shell("location", file); !strings.Contains(out, stays) || strings.Contains(out, leaves) {
				return out
			}
			return ""
		})
	}
	r.status("the sum says so",
		func(d *v1alpha1.Dataset) bool { return d.Status.CacheStates[v1alpha1.Cached] == "8.00MiB" })
}

// hash is the mark of the mount /hbase in Alluxio.
func (r *actual) hash(conn *rpc.Cluster) string {
	table, err := conn.MountTable(r.t.Context())
	must(r.t, err)
	return table["/hbase"].GetProperties()[objects.HashOption]
}

// rotated changes the Secret that a mount names, back and forth: Alluxio gets the new key, and loses nothing that it
// has cached.
func (r *actual) rotated() {
	conn := r.connect()
	first := r.hash(conn)
	key := func(value string) {
		must(r.t, r.c.Patch(r.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, Name: "keys"}},
			mergePatch(map[string]any{"data": map[string]any{"key": []byte(value)}})))
	}
	key("another key")
	eventually(r.t, "the mount has the new key", func() string {
		if r.hash(conn) == first {
			return "it is as it was"
		}
		return ""
	})
	key(r.keys.SecretAccessKey)
	eventually(r.t, "the mount has the first key again", func() string {
		if r.hash(conn) != first {
			return "it is another"
		}
		return ""
	})
	r.status("all is cached still", func(d *v1alpha1.Dataset) bool {
		return d.Status.Phase == v1alpha1.Bound && d.Status.CacheStates[v1alpha1.Cached] == "8.00MiB"
	})
}

// remounted adds a mount; one that was removed by hand comes back, and one that was made by hand stays.
func (r *actual) remounted() {
	t := r.t
	d := dataset(t, r.c, r.ns, "hbase")
	more := d.Spec.Mounts[0].DeepCopy()
	more.Name, more.MountPoint = "part", "s3://more/"
	more.Options["alluxio.underfs.s3.endpoint"] = source(t, "more", r.keys, map[string]int{"four": 4})
	must(t,
		r.c.Patch(t.Context(), d,
			mergePatch(map[string]any{"spec": map[string]any{"mounts": []v1alpha1.Mount{d.Spec.Mounts[0], *more}}})))
	r.shell("unmount", "/hbase")
	r.shell("mount", "/mine", t.TempDir())
	eventually(t, "the mounts are what the spec says", func() string {
		out := r.shell("mount")
		for _, path := range []string{" /hbase ", " /part ", " /mine "} {
			if !strings.Contains(out, path) {
				return out
			}
		}
		return ""
	})
	must(t, r.c.Patch(t.Context(), dataset(t, r.c, r.ns, "hbase"),
		mergePatch(map[string]any{"spec": map[string]any{"mounts": []v1alpha1.Mount{d.Spec.Mounts[0]}}})))
	eventually(t, "the mount is gone", func() string {
		if out := r.shell("mount"); strings.Contains(out, " /part ") || !strings.Contains(out, " /mine ") {
			return out
		}
		return ""
	})
}

// deleted looks that no worker has a block before the pods go.
func (r *actual) deleted() {
	r.load("again", v1alpha1.DataLoadSpec{})
	r.loadStatus("again", "there is something cached",
		func(s *v1alpha1.DataLoadStatus) bool { return s.Phase == v1alpha1.LoadComplete })
	conn := r.connect()
	for _, o := range []client.Object{dataset(r.t, r.c, r.ns, "hbase"), alluxio(r.t, r.c, r.ns, "hbase")} {
		must(r.t, r.c.Delete(r.t.Context(), o))
	}
	gone(r.t, r.c, r.ns)
	infos, err := conn.WorkerInfos(r.t.Context())
	must(r.t, err)
	for _, info := range infos {
		if info.GetUsedBytes() != 0 {
			r.t.Errorf("a worker has %d bytes still", info.GetUsedBytes())
		}
	}
}
