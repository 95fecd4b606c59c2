package reconcile

import (
	"errors"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
)

// TestCreated has a Dataset and its runtime become objects at the first look, all of them the runtime's, and the second
// look write nothing.
func TestCreated(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	g := newRig(t, d, o)
	did := g.look()
	want := "Secret ConfigMap Service NetworkPolicy PodDisruptionBudget StatefulSet PersistentVolume PersistentVolumeClaim"
	if got := kinds(did, "apply"); got != want {
		t.Errorf("applied were %s, want %s", got, want)
	}
	if got := kinds(did, "patch") + kinds(did, "status"); got != "Dataset AlluxioRuntimeDataset AlluxioRuntime" {
		t.Errorf("written were %q", did)
	}
	g.quiet()
	for _, made := range []client.Object{&appsv1.StatefulSet{}, &corev1.Service{}, &networkingv1.NetworkPolicy{}} {
		if !g.there(made, key.Namespace, "hbase-master") && !g.there(made, key.Namespace, "hbase-master-0") {
			t.Errorf("there is no %T", made)
		}
		owners := made.GetOwnerReferences()
		if !ownedBy(made, key) || len(owners) != 1 || owners[0].UID != "runtime" {
			t.Errorf("a %T has the labels %v and the owners %v", made, made.GetLabels(), owners)
		}
	}
	for _, o := range []client.Object{g.dataset(), g.runtime()} {
		if !controllerutil.ContainsFinalizer(o, Finalizer) {
			t.Errorf("the deletion of a %T would not be seen", o)
		}
	}
	if phase := g.dataset().Status.Phase; phase != v1alpha1.NotBound {
		t.Errorf("it is %s", phase)
	}
	g.says("Ready", "=False Starting: ", "not been asked yet")
	g.says("Valid", "=True Accepted: ")
	g.says("Mounted", "=False NotMounted: ")
	g.says("Applied", "=True Applied: ")
	g.says("MasterReady", "=False NotReady: 0 of 1 masters are ready")
	g.says("WorkersReady", "=False NotReady: 0 of 2 workers are ready")
	g.says("Progressing", "=False UpToDate: ")
}

// TestWithoutTheOther makes nothing of a Dataset without its runtime, or of a runtime without its Dataset, and says
// what is missing.
func TestWithoutTheOther(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	for name, tc := range map[string]struct {
		there      []client.Object
		writes     string
		kind, says string
	}{
		"a Dataset":         {[]client.Object{d}, "status Dataset hbase", "Ready", "=False NoRuntime: "},
		"a runtime":         {[]client.Object{o}, "status AlluxioRuntime hbase", "Applied", "=False NoDataset: "},
		"neither":           {nil, "", "Ready", " is not there"},
		"a pod and a claim": {[]client.Object{newUser("reader", corev1.PodRunning)}, "", "Ready", " is not there"},
		"another's in its place": {
			[]client.Object{d, renamed(o, "other")}, "status Dataset hbase", "Ready", "=False NoRuntime: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var there []client.Object
			for _, o := range tc.there {
				c, _ := o.DeepCopyObject().(client.Object)
				there = append(there, c)
			}
			g := newRig(t, there...)
			if did := strings.Join(g.look(), ", "); did != tc.writes {
				t.Errorf("written were %q", did)
			}
			g.says(tc.kind, tc.says)
			g.quiet()
		})
	}
}

// renamed is a copy of an object with another name.
func renamed(o client.Object, name string) client.Object {
	c, _ := o.DeepCopyObject().(client.Object)
	c.SetName(name)
	return c
}

// TestAnotherNamespace leaves Datasets alone that another controller serves.
func TestAnotherNamespace(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	g := newRig(t, d, o)
	g.r.Namespace = "science"
	if did := g.look(); len(did) > 0 {
		t.Errorf("written were %q", did)
	}
}

// TestRefused names the field of a spec that cannot be served, applies nothing, and goes on when it is mended.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*v1alpha1.Dataset, *v1alpha1.AlluxioRuntime)
		field string
		says  string
	}{
		"a scheme": {
			func(d *v1alpha1.Dataset, _ *v1alpha1.AlluxioRuntime) { d.Spec.Mounts[0].MountPoint = "gopher://a/b" },
			"Dataset.spec.mounts[0].mountPoint", "gopher",
		},
		"a Secret that is not there": {
			func(d *v1alpha1.Dataset, _ *v1alpha1.AlluxioRuntime) {
				d.Spec.Mounts[0].EncryptOptions = encrypted("pass")
			},
			"Dataset.spec.mounts[0].encryptOptions[0]", "web",
		},
		"a tier without a size": {
			func(_ *v1alpha1.Dataset, o *v1alpha1.AlluxioRuntime) { o.Spec.TieredStore.Levels[0].Quota = nil },
			"AlluxioRuntime.spec.tieredstore.levels[0]", "quota",
		},
		"a capacity": {
			func(d *v1alpha1.Dataset, _ *v1alpha1.AlluxioRuntime) {
				d.Annotations = map[string]string{objects.CapacityAnnotation: "much"}
			},
			"Dataset.metadata.annotations", "much",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := newDataset("https://mirror.example.org/a/")
			tc.spoil(d, o)
			g := newRig(t, d, o)
			if did := g.look(); kinds(did, "apply") != "" {
				t.Errorf("applied were %q", did)
			}
			g.quiet()
			for _, kind := range []string{"Valid", "Ready", "Applied"} {
				g.says(kind, "=False InvalidSpec: "+tc.field, tc.says)
			}
			if phase := g.dataset().Status.Phase; phase != v1alpha1.FailedPhase {
				t.Errorf("it is %s", phase)
			}
			good, fine := newDataset("https://mirror.example.org/a/")
			spoiled, spec := g.dataset(), g.runtime()
			spoiled.Spec, spoiled.Annotations, spec.Spec = good.Spec, nil, fine.Spec
			g.must(g.Update(t.Context(), spoiled))
			g.must(g.Update(t.Context(), spec))
			if did := g.look(); kinds(did, "apply") == "" {
				t.Errorf("mended, written were %q", did)
			}
			g.says("Valid", "=True Accepted: ")
			g.says("Applied", "=True Applied: ")
		})
	}
}

// TestRefusedByTheServer says what the API server does not accept, and by its own reason; all else is applied anew at
// the next look.
func TestRefusedByTheServer(t *testing.T) {
	group := schema.GroupResource{Resource: "services"}
	for reason, err := range map[string]error{
		"Forbidden": apierrors.NewForbidden(group, "hbase-master-0", errors.New("no quota")),
		"Invalid":   apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "hbase-master-0", nil),
		"Refused":   errors.New("no answer"),
	} {
		d, o := newDataset("https://mirror.example.org/a/")
		g := newRig(t, d, o)
		g.fails = func(write string) error {
			if write == "apply Service hbase-master-0" {
				return err
			}
			return nil
		}
		if _, got := g.tryLook(); !errors.Is(got, err) {
			t.Errorf("%s is not told to the queue: %v", reason, got)
		}
		g.says("Applied", "=False "+reason+": Service hbase-master-0: ")
		g.fails = nil
		g.settle()
		g.says("Applied", "=True Applied: ")
	}
}

// TestTaken leaves an object alone that has the name of one that is to be made, and was made for something else; and
// says so.
func TestTaken(t *testing.T) {
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: key.Namespace, Name: name} }
	anothers := named("hbase-config")
	anothers.Labels = map[string]string{
		objects.ManagedByLabel: objects.ManagedBy, objects.DatasetLabel: "other", objects.NamespaceLabel: key.Namespace,
	}
	for name, theirs := range map[string]client.Object{
		"StatefulSet hbase-master":    &appsv1.StatefulSet{ObjectMeta: named("hbase-master")},
		"NetworkPolicy hbase-master":  &networkingv1.NetworkPolicy{ObjectMeta: named("hbase-master")},
		"PersistentVolume hbase":      &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "hbase"}},
		"PersistentVolumeClaim hbase": &corev1.PersistentVolumeClaim{ObjectMeta: named("hbase")},
		"Secret hbase-gateway":        &corev1.Secret{ObjectMeta: named("hbase-gateway")},
		"ConfigMap hbase-config":      &corev1.ConfigMap{ObjectMeta: anothers},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := newDataset("https://mirror.example.org/a/")
			g := newRig(t, d, o, theirs)
			before, _ := theirs.DeepCopyObject().(client.Object)
			g.must(g.Get(t.Context(), client.ObjectKeyFromObject(theirs), before))
			if _, err := g.tryLook(); err == nil {
				t.Error("the queue is not told")
			}
			g.says("Applied", "=False Refused: "+name, "was not made for this Dataset")
			after, _ := theirs.DeepCopyObject().(client.Object)
			g.must(g.Get(t.Context(), client.ObjectKeyFromObject(theirs), after))
			if before.GetResourceVersion() != after.GetResourceVersion() {
				t.Errorf("it became %+v", after)
			}
			g.must(g.Delete(t.Context(), d))
			g.must(g.Delete(t.Context(), o))
			for range 6 {
				_, _ = g.tryLook()
			}
			if !g.there(after, after.GetNamespace(), after.GetName()) || g.there(&v1alpha1.Dataset{}, key.Namespace, key.Name) {
				t.Error("it goes with the Dataset, or keeps it")
			}
		})
	}
}

// TestDrift sets back what others change in what was made, makes anew what they delete, and lets stay what they add.
func TestDrift(t *testing.T) {
	set := func() *appsv1.StatefulSet { return &appsv1.StatefulSet{} }
	for name, tc := range map[string]struct {
		change func(*rig)
		did    []string
		holds  func(*rig) bool
	}{
		"deleted": {
			func(g *rig) {
				g.must(g.Delete(t.Context(), &corev1.Service{
					ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "hbase-master-0"},
				}))
			},
			[]string{"apply Service hbase-master-0"},
			func(g *rig) bool { return g.there(&corev1.Service{}, key.Namespace, "hbase-master-0") },
		},
		"changed": {
			func(g *rig) {
				s := set()
				g.there(s, key.Namespace, "hbase-master")
				s.Spec.Replicas = new(int32(7))
				g.must(g.Update(t.Context(), s))
			},
			[]string{"apply StatefulSet hbase-master"},
			func(g *rig) bool { s := set(); g.there(s, key.Namespace, "hbase-master"); return *s.Spec.Replicas == 1 },
		},
		"a variable changed": {
			func(g *rig) {
				s := set()
				g.there(s, key.Namespace, "hbase-worker")
				s.Spec.Template.Spec.Containers[0].Image = "evil"
				g.must(g.Update(t.Context(), s))
			},
			[]string{"apply StatefulSet hbase-worker"},
			func(g *rig) bool {
				s := set()
				g.there(s, key.Namespace, "hbase-worker")
				return s.Spec.Template.Spec.Containers[0].Image == "alluxio/alluxio:2.9.5"
			},
		},
		"an annotation added": {
			func(g *rig) {
				s := set()
				g.there(s, key.Namespace, "hbase-worker")
				s.Annotations["team"] = "a"
				g.must(g.Update(t.Context(), s))
			},
			nil,
			func(g *rig) bool {
				s := set()
				g.there(s, key.Namespace, "hbase-worker")
				return s.Annotations["team"] == "a"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := newDataset("https://mirror.example.org/a/")
			g := newRig(t, d, o)
			g.settle()
			tc.change(g)
			if did := g.look(); !slices.Equal(did, tc.did) {
				t.Errorf("written were %q, want %q", did, tc.did)
			}
			if !tc.holds(g) {
				t.Error("it is not as it is to be")
			}
			g.quiet()
		})
	}
}
