package reconcile

import (
	"errors"
	"slices"
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

// left are the kinds and names of what there still is for the Dataset, without itself and its runtime.
func (g *rig) left() []string {
	g.t.Helper()
	var found []string
	for _, list := range []client.ObjectList{
		&appsv1.StatefulSetList{}, &corev1.ServiceList{}, &corev1.ConfigMapList{}, &corev1.SecretList{},
		&corev1.PersistentVolumeList{}, &corev1.PersistentVolumeClaimList{},
	} {
		g.must(g.List(g.t.Context(), list))
		items, err := itemsOf(list)
		g.must(err)
		for _, o := range items {
			found = append(found, o.GetName())
		}
	}
	return found
}

// TestDeleted takes a Dataset down in order whichever of the two is deleted first: the claim, its volume, the workers,
// the masters, and the rest. A Dataset takes its runtime with it, but no runtime its Dataset.
func TestDeleted(t *testing.T) {
	order := []string{
		"delete PersistentVolumeClaim hbase", "delete PersistentVolume hbase", "delete StatefulSet hbase-worker",
		"delete StatefulSet hbase-master",
	}
	for name, tc := range map[string]struct {
		runtime, dataset bool
		gone             []string
	}{
		"the Dataset": {false, true, []string{"Dataset", "AlluxioRuntime"}},
		"the runtime": {true, false, []string{"AlluxioRuntime"}},
		"both":        {true, true, []string{"Dataset", "AlluxioRuntime"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := newDataset("https://mirror.example.org/a/")
			g := newRig(t, d, o)
			g.settle()
			if tc.runtime {
				g.must(g.Delete(t.Context(), o))
			}
			if tc.dataset {
				g.must(g.Delete(t.Context(), d))
			}
			did, _ := g.follow()
			var sets []string
			for _, write := range did {
				if slices.Contains(order, write) {
					sets = append(sets, write)
				}
			}
			if !slices.Equal(sets, order) {
				t.Errorf("deleted were %q, want %q", sets, order)
			}
			if left := g.left(); len(left) > 0 {
				t.Errorf("left are %q", left)
			}
			if there := g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name); there == tc.dataset {
				t.Errorf("the Dataset is there: %v", there)
			}
			if g.there(&v1alpha1.AlluxioRuntime{}, key.Namespace, key.Name) {
				t.Error("the runtime is there")
			}
			if !tc.dataset {
				g.says("Ready", "=False NoRuntime: ")
				g.says("Deleting", " is not there")
				if phase := g.dataset().Status.Phase; phase != v1alpha1.NotBound {
					t.Errorf("it is %s", phase)
				}
			}
			g.quiet()
		})
	}
}

// TestDeletionWaits touches nothing while pods use the claim, whichever and however many, and names them.
func TestDeletionWaits(t *testing.T) {
	for name, tc := range map[string]struct {
		users []client.Object
		waits string
		says  []string
	}{
		"one runs": {
			[]client.Object{newUser("a", corev1.PodRunning)}, "=True InUse: ", []string{"claim hbase", "pods a;"},
		},
		"one is to run": {[]client.Object{newUser("a", corev1.PodPending)}, "=True InUse: ", []string{"pods a;"}},
		"several": {[]client.Object{
			newUser("e", corev1.PodRunning), newUser("d", corev1.PodRunning), newUser("c", corev1.PodRunning),
			newUser("b", corev1.PodRunning), newUser("a", corev1.PodRunning),
		}, "=True InUse: ", []string{"pods a, b, c and 2 more;"}},
		"one runs and one has ended": {[]client.Object{
			newUser("a", corev1.PodSucceeded), newUser("b", corev1.PodRunning),
		}, "=True InUse: ", []string{"pods b;"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := newDataset("https://mirror.example.org/a/")
			g := newRig(t, append([]client.Object{d, o}, tc.users...)...)
			g.settle()
			before := g.left()
			g.must(g.Delete(t.Context(), d))
			if did := g.look(); kinds(did, "delete")+kinds(did, "apply") != "" {
				t.Errorf("written were %q", did)
			}
			g.says("Deleting", tc.waits, tc.says...)
			if said := strings.Join(g.said, "\n"); !strings.Contains(said, "Normal InUse: the claim hbase") {
				t.Errorf("said was %q", g.said)
			}
			if after := g.left(); !slices.Equal(before, after) {
				t.Errorf("left are %q of %q", after, before)
			}
			g.quiet()
			for _, user := range tc.users {
				g.must(g.Delete(t.Context(), user))
			}
			g.settle()
			if left := g.left(); len(left) > 0 || g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name) {
				t.Errorf("left are %q", left)
			}
		})
	}
}

// TestDeletionSaysWhatKeepsTheClaim names the finalizers of a claim that does not go, and pods that have ended and name
// it still. Nothing that comes after the claim goes before it.
func TestDeletionSaysWhatKeepsTheClaim(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	g := newRig(t, d, o, newUser("done", corev1.PodSucceeded))
	g.settle()
	claim := &corev1.PersistentVolumeClaim{}
	g.there(claim, key.Namespace, key.Name)
	claim.Finalizers = []string{"kubernetes.io/pvc-protection"}
	g.must(g.Update(t.Context(), claim))
	g.must(g.Delete(t.Context(), d))
	g.settle()
	g.says("Deleting", "=True Waiting: waits for the end of the PersistentVolumeClaim hbase", "pvc-protection", "done")
	if left := g.left(); !slices.Contains(left, "hbase-worker") {
		t.Errorf("left are %q", left)
	}
	g.there(claim, key.Namespace, key.Name)
	claim.Finalizers = nil
	g.must(g.Update(t.Context(), claim))
	g.settle()
	if left := g.left(); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// TestDeletionThatFails lets nothing go while something cannot be deleted, and says why.
func TestDeletionThatFails(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	g := newRig(t, d, o)
	g.settle()
	g.must(g.Delete(t.Context(), d))
	failure := errors.New("no answer")
	g.fails = func(write string) error {
		if write == "delete StatefulSet hbase-worker" {
			return failure
		}
		return nil
	}
	var err error
	for range 8 {
		_, err = g.tryLook()
	}
	if !errors.Is(err, failure) || !slices.Contains(g.left(), "hbase-master") ||
		!g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name) {
		t.Errorf("the queue is told %v; left are %q", err, g.left())
	}
}

// TestSwept removes the tiers from each node that had a worker before the Dataset is gone, and leaves no sweeper behind
// that has ended.
func TestSwept(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	o.Status.TierNodes = []string{"one", "two"}
	g := newRig(t, d, o)
	g.settle()
	g.must(g.Delete(t.Context(), d))
	g.settle()
	g.says("Deleting", "=True Sweeping: ", "from the nodes one, two")
	sweepers := &corev1.PodList{}
	g.must(g.List(t.Context(), sweepers, client.InNamespace("millrace-system")))
	if len(sweepers.Items) != 2 || !g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name) {
		t.Fatalf("there are %d sweepers", len(sweepers.Items))
	}
	for i := range sweepers.Items {
		pod := &sweepers.Items[i]
		if pod.Spec.NodeName != "one" && pod.Spec.NodeName != "two" {
			t.Errorf("one is on the node %q", pod.Spec.NodeName)
		}
		pod.Status.Phase = corev1.PodSucceeded
		g.must(g.Status().Update(t.Context(), pod))
	}
	g.settle()
	g.must(g.List(t.Context(), sweepers, client.InNamespace("millrace-system")))
	if len(sweepers.Items) > 0 || g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name) {
		t.Errorf("left are %d sweepers, or the Dataset", len(sweepers.Items))
	}
}

// TestNodeThatIsGone holds no deletion up: its sweeper stays for when it is back, and an event says so.
func TestNodeThatIsGone(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	o.Status.TierNodes = []string{"lost"}
	sweeper := objects.Sweeper(objects.Input{Runtime: o, Settings: newRig(t).r.Settings}, "lost")
	sweeper.CreationTimestamp = metav1.NewTime(time.Now().Add(-2 * sweepPatience))
	g := newRig(t, d, o, sweeper)
	g.settle()
	g.must(g.Delete(t.Context(), d))
	_, all := g.follow()
	said := strings.Join(all, "\n")
	if g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name) {
		t.Errorf("the Dataset waits: %s", g.condition("Deleting"))
	}
	if !g.there(&corev1.Pod{}, "millrace-system", sweeper.Name) ||
		!strings.Contains(said, "Warning NotSwept: the tiers on the node lost") {
		t.Errorf("the sweeper is gone, or nothing was said: %s", said)
	}
}

// TestForeignSweeper waits for no pod of the name that was made for something else, and leaves it.
func TestForeignSweeper(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	o.Status.TierNodes = []string{"one"}
	sweeper := objects.Sweeper(objects.Input{Runtime: o, Settings: newRig(t).r.Settings}, "one")
	sweeper.Labels = nil
	g := newRig(t, d, o, sweeper)
	g.settle()
	g.must(g.Delete(t.Context(), d))
	g.settle()
	if g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name) || !g.there(&corev1.Pod{}, "millrace-system", sweeper.Name) {
		t.Error("the Dataset waits for it, or it is gone")
	}
}
