package controller_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
)

func mergePatch(v any) client.Patch {
	text, _ := json.Marshal(v)
	return client.RawPatch("application/merge-patch+json", text)
}

// TestWalkthroughBecomesObjects makes the walkthrough's objects, and looks at what is there and what is said.
func TestWalkthroughBecomesObjects(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	stop := start(t, s, ns, nil)
	specs := documents(t, walkthrough)
	for _, o := range specs {
		o.SetNamespace(ns)
	}
	must(t, c.Create(t.Context(), specs[0]))
	eventually(t, "the Dataset is NotBound", func() string {
		d := dataset(t, c, ns, "hbase")
		if d.Status.Phase != v1alpha1.NotBound {
			return "it is " + string(d.Status.Phase)
		}
		return ""
	})
	must(t, c.Create(t.Context(), specs[1]))
	complete(t, c, ns)
	eventually(t, "the status tells", func() string {
		r := alluxio(t, c, ns, "hbase")
		switch {
		case r.Status.DesiredMasterNumberScheduled != 3 || r.Status.DesiredWorkerNumberScheduled != 2 ||
			r.Status.CurrentMasterNumberScheduled != 3:
			return "numbers are wrong"
		case r.Status.MasterPhase != v1alpha1.NotReady || r.Status.FusePhase != v1alpha1.ReadyPhase:
			return "phases are wrong"
		case r.Status.Selector != "app=alluxio,release=hbase,role=alluxio-worker":
			return "the selector is " + r.Status.Selector
		case r.Status.ObservedGeneration != r.Generation:
			return "the generation is old"
		case !strings.HasPrefix(condition(r.Status.Conditions, v1alpha1.JournalPersistent), "JournalPersistent=False"):
			return condition(r.Status.Conditions, v1alpha1.JournalPersistent)
		case !strings.HasPrefix(condition(r.Status.Conditions, v1alpha1.Applied), "Applied=True"):
			return condition(r.Status.Conditions, v1alpha1.Applied)
		}
		return ""
	})

	before := settled(t, c, ns)
	must(t, stop())
	start(t, s, ns, nil)
	time.Sleep(3 * time.Second)
	if after := versions(t, c, ns); !maps.Equal(before, after) {
		t.Errorf("a new controller has changed objects: before\n%v\nafter\n%v", before, after)
	}
}

// settled are the versions once no writes come any more.
func settled(t *testing.T, c client.Client, ns string) map[string]string {
	t.Helper()
	last, since := map[string]string{}, time.Now()
	eventually(t, "the objects do not change any more", func() string {
		if now := versions(t, c, ns); !maps.Equal(now, last) {
			last, since = now, time.Now()
		}
		if time.Since(since) < 2*time.Second {
			return "they changed just now"
		}
		return ""
	})
	return last
}

// TestDriftIsRepaired changes and deletes what the controller made.
func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	must(t, c.Delete(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: ns,
		Name:      "hbase-master-1",
	}}))
	must(t, c.Patch(t.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: ns,
		Name:      "hbase-master",
	}}, mergePatch(map[string]any{"spec": map[string]any{"replicas": 7}})))
	eventually(t, "the StatefulSet has 3 replicas", func() string {
		set := &appsv1.StatefulSet{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase-master"}, set))
		if *set.Spec.Replicas != 3 {
			return "it has others"
		}
		return ""
	})
	complete(t, c, ns)
}

// TestScale scales workers as kubectl does, and changes what is in the pods.
func TestScale(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	out, err := s.Kubectl(t.Context(), "scale", "alluxioruntime", "hbase", "--replicas=4", "-n", ns)
	if err != nil {
		t.Fatal(out)
	}
	must(t, c.Patch(t.Context(), alluxio(t, c, ns, "hbase"),
		mergePatch(map[string]any{"spec": map[string]any{"worker": map[string]any{"env": map[string]string{"A": "b"}}}})))
	eventually(t, "the workers' StatefulSet follows", func() string {
		set := &appsv1.StatefulSet{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase-worker"}, set))
		if *set.Spec.Replicas != 4 {
			return "it has other replicas"
		}
		for _, e := range set.Spec.Template.Spec.Containers[0].Env {
			if e.Name == "A" && e.Value == "b" {
				return ""
			}
		}
		return "the variable is not there"
	})
}

// TestProblemsEndInConditions gives specs that only the controller can judge; another Dataset goes on beside them.
func TestProblemsEndInConditions(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	for _, o := range documents(t, "../../controller/objects/testdata/s3secret.yaml") {
		if o.GetKind() != "Secret" {
			o.SetNamespace(ns)
			must(t, c.Create(t.Context(), o))
		}
	}
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	eventually(t, "the missing Secret is named", func() string {
		d := dataset(t, c, ns, "weather")
		line := condition(d.Status.Conditions, v1alpha1.Valid)
		if d.Status.Phase == v1alpha1.FailedPhase && strings.HasPrefix(line, "Valid=False InvalidSpec") &&
			strings.Contains(line, "Dataset.spec.mounts[0].encryptOptions[0]") && strings.Contains(line, `"keys"`) {
			return ""
		}
		return string(d.Status.Phase) + " " + line
	})
	must(t, c.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "keys"},
		Data:       map[string][]byte{"id": []byte("a"), "key": []byte("b")},
	}))
	eventually(t, "the Dataset is valid once the Secret is there", func() string {
		if line := condition(dataset(t, c, ns, "weather").Status.Conditions, v1alpha1.Valid); !strings.HasPrefix(line,
			"Valid=True") {
			return line
		}
		return ""
	})
}

// TestNameTaken has another's volume, Service and claim where ours would be. They are named, and stay when the
// Dataset goes.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	for _, kind := range []string{"PersistentVolume", "Service", "PersistentVolumeClaim"} {
		t.Run(kind, func(t *testing.T) {
			ns := namespace(t, c)
			var theirs client.Object
			switch kind {
			case "PersistentVolume":
				theirs = &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: objects.VolumeName(ns, "hbase",
					false)}, Spec: corev1.PersistentVolumeSpec{
					Capacity:               corev1.ResourceList{"storage": quantity("1Gi")},
					AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}},
				}}
			case "Service":
				theirs = &corev1.Service{
					ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "hbase-master"},
					Spec: corev1.ServiceSpec{
						Selector: map[string]string{"mine": "yes"}, Ports: []corev1.ServicePort{{Port: 80}},
					},
				}
			case "PersistentVolumeClaim":
				theirs = &corev1.PersistentVolumeClaim{
					ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "hbase"},
					Spec: corev1.PersistentVolumeClaimSpec{
						AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
						Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": quantity("1Gi")}},
					},
				}
			}
			must(t, c.Create(t.Context(), theirs))
			start(t, s, ns, nil)
			specs := create(t, c, ns, walkthrough)
			eventually(t, "the condition names it", func() string {
				line := condition(alluxio(t, c, ns, "hbase").Status.Conditions, v1alpha1.Applied)
				if strings.HasPrefix(line, "Applied=False") && strings.Contains(line, kind+" ") &&
					strings.Contains(line, "not made for this Dataset") {
					return ""
				}
				return line
			})
			for _, o := range specs {
				must(t, client.IgnoreNotFound(c.Delete(t.Context(), o)))
			}
			eventually(t, "the Dataset is gone", func() string { return dataset(t, c, ns, "hbase").Name })
			must(t, c.Get(t.Context(), client.ObjectKeyFromObject(theirs), theirs))
			if theirs.GetDeletionTimestamp() != nil {
				t.Errorf("somebody else's %s is being deleted", kind)
			}
		})
	}
}

// TestDeleteInAnyOrder takes Dataset and runtime down, and looks for what is left.
func TestDeleteInAnyOrder(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	for name, order := range map[string][]string{
		"runtime first": {"AlluxioRuntime", "Dataset"},
		"Dataset first": {"Dataset", "AlluxioRuntime"}, "Dataset only": {"Dataset"},
	} {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t, c)
			start(t, s, ns, nil)
			specs := create(t, c, ns, walkthrough)
			complete(t, c, ns)
			for _, kind := range order {
				for _, o := range specs {
					if o.GetKind() == kind {
						must(t, client.IgnoreNotFound(c.Delete(t.Context(), o)))
					}
				}
			}
			gone(t, c, ns)
		})
	}
}

// TestDeleteWaitsForPods deletes while a pod uses the claim.
func TestDeleteWaitsForPods(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	specs := create(t, c, ns, walkthrough)
	complete(t, c, ns)
	user := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "reader"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "busybox"}},
		Volumes: []corev1.Volume{{
			Name:         "data",
			VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "hbase"}},
		}},
	}}
	must(t, c.Create(t.Context(), user))
	before := settled(t, c, ns)
	for _, o := range specs {
		must(t, c.Delete(t.Context(), o))
	}
	eventually(t, "the condition names the pod", func() string {
		line := condition(dataset(t, c, ns, "hbase").Status.Conditions, v1alpha1.Deleting)
		if strings.HasPrefix(line, "Deleting=True InUse") && strings.Contains(line, "reader") {
			return ""
		}
		return line
	})
	if after := settled(t, c, ns); !maps.Equal(before, after) {
		t.Errorf("objects changed while the claim is in use: before\n%v\nafter\n%v", before, after)
	}
	must(t, c.Delete(t.Context(), user, client.GracePeriodSeconds(0)))
	gone(t, c, ns)
}

// TestRuntimeOnlyIsDeleted leaves the Dataset, which can get another runtime.
func TestRuntimeOnlyIsDeleted(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	specs := create(t, c, ns, walkthrough)
	complete(t, c, ns)
	must(t, c.Delete(t.Context(), specs[1]))
	eventually(t, "the Dataset is left alone", func() string {
		if left := versions(t, c, ns); len(left) > 0 || alluxio(t, c, ns, "hbase").Name != "" {
			return "there is more"
		}
		if d := dataset(t, c, ns, "hbase"); d.Status.Phase != v1alpha1.NotBound {
			return "it is " + string(d.Status.Phase)
		}
		return ""
	})
	again := documents(t, walkthrough)[1]
	again.SetNamespace(ns)
	must(t, c.Create(t.Context(), again))
	complete(t, c, ns)
}
