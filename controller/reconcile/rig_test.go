package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// key is the Dataset of these tests, and its runtime.
var key = types.NamespacedName{Namespace: "default", Name: "hbase"}

// rig is a reconciler on an API server of memory, which keeps objects and applies as a real one does. It has no
// controllers of Kubernetes: a test makes the pods, and takes them away.
type rig struct {
	client.Client
	t *testing.T
	r *Reconciler
	// did are the writes since the test looked last, such as "apply Service hbase-master-0".
	did []string
	// said are the events since then, such as "Warning NotSwept: the tiers".
	said []string
	// fails is the error of a write in place of what comes of it; nil for none.
	fails func(write string) error
}

// schemeOnce has the types that the reconciler knows.
var schemeOnce = sync.OnceValues(func() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	var errs []error
	// Those of all of Kubernetes would take longer than the tests.
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, eventsv1.AddToScheme,
		v1alpha1.AddToScheme,
	} {
		errs = append(errs, add(scheme))
	}
	return scheme, errors.Join(errs...)
})

func newRig(t *testing.T, there ...client.Object) *rig {
	t.Helper()
	g := &rig{t: t}
	scheme, err := schemeOnce()
	g.must(err)
	g.Client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(there...).
		WithTypeConverters(managedfields.NewDeducedTypeConverter()).
		WithStatusSubresource(&v1alpha1.Dataset{}, &v1alpha1.AlluxioRuntime{}, &v1alpha1.DataLoad{}).
		WithIndex(&corev1.Pod{}, indexDataset, datasetOf).WithIndex(&corev1.Pod{}, indexClaim, claimsOf).
		WithIndex(&eventsv1.Event{}, "type", func(o client.Object) []string {
			e, _ := o.(*eventsv1.Event)
			return []string{e.Type}
		}).WithInterceptorFuncs(g.writes()).Build()
	g.r = &Reconciler{
		Client: g.Client, Live: g.Client, Clusters: &masters.Clusters{Log: slog.New(slog.DiscardHandler)},
		Settings: objects.Settings{
			AlluxioImage: "alluxio/alluxio:2.9.5", MillraceImage: "example.org/millrace:v1", Driver: "csi.millrace.io",
			Namespace: "millrace-system",
		},
		SecretAge: 1, Events: g, Log: slog.New(slog.DiscardHandler),
	}
	return g
}

// Eventf implements events.EventRecorder.
func (g *rig) Eventf(_, _ runtime.Object, kind, reason, _, note string, args ...any) {
	g.said = append(g.said, kind+" "+reason+": "+fmt.Sprintf(note, args...))
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// write notes a write of an object.
func (g *rig) write(verb string, o runtime.Object, name string) error {
	gvk, err := apiutil.GVKForObject(o, g.Scheme())
	if err != nil {
		return err
	}
	return g.writeOf(verb, gvk.Kind, name)
}

func (g *rig) writeOf(verb, kind, name string) error {
	text := verb + " " + kind + " " + name
	g.did = append(g.did, text)
	if g.fails != nil {
		return g.fails(text)
	}
	return nil
}

// writes notes what the reconciler writes. What a test writes itself goes by other calls, or is looked away from.
func (g *rig) writes() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := g.write("create", o, o.GetName()); err != nil {
				return err
			}
			o.SetCreationTimestamp(metav1.Now())
			return c.Create(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if err := g.write("delete", o, o.GetName()); err != nil {
				return err
			}
			return c.Delete(ctx, o, opts...)
		},
		Patch: func(
			ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption,
		) error {
			if err := g.write("patch", o, o.GetName()); err != nil {
				return err
			}
			return c.Patch(ctx, o, p, opts...)
		},
		Apply: func(
			ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption,
		) error {
			u, ok := o.(interface {
				GetKind() string
				GetName() string
			})
			if !ok {
				return fmt.Errorf("%T has no name", o)
			}
			if err := g.writeOf("apply", u.GetKind(), u.GetName()); err != nil {
				return err
			}
			return c.Apply(ctx, o, opts...)
		},
		SubResourcePatch: func(
			ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch,
			opts ...client.SubResourcePatchOption,
		) error {
			if err := g.write(sub, o, o.GetName()); err != nil {
				return err
			}
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	}
}

// look reconciles once, and returns what was written.
func (g *rig) look() []string {
	g.t.Helper()
	did, err := g.tryLook()
	g.must(err)
	return did
}

// tryLook is look where it may fail.
func (g *rig) tryLook() ([]string, error) {
	g.did, g.said = nil, nil
	_, err := g.r.Reconcile(g.t.Context(), ctrl.Request{NamespacedName: key})
	did := g.did
	g.did = nil
	return did, err
}

// settle looks until nothing is written any more.
func (g *rig) settle() {
	g.t.Helper()
	g.follow()
}

// follow is settle, and returns all that was written and said meanwhile.
func (g *rig) follow() (did, said []string) {
	g.t.Helper()
	for range 20 {
		now := g.look()
		said = append(said, g.said...)
		if len(now) == 0 {
			return did, said
		}
		did = append(did, now...)
	}
	g.t.Fatalf("it writes on and on: %q", did)
	return nil, nil
}

// quiet looks once more, and nothing may be written.
func (g *rig) quiet() {
	g.t.Helper()
	if did := g.look(); len(did) > 0 {
		g.t.Errorf("nothing has changed, and it wrote %q", did)
	}
	if len(g.said) > 0 {
		g.t.Errorf("nothing has changed, and it said %q", g.said)
	}
}

// there reports whether the object of a name is there, and reads it.
func (g *rig) there(o client.Object, namespace, name string) bool {
	g.t.Helper()
	err := g.Get(g.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o)
	g.must(client.IgnoreNotFound(err))
	return err == nil
}

func (g *rig) dataset() *v1alpha1.Dataset {
	g.t.Helper()
	d := &v1alpha1.Dataset{}
	if !g.there(d, key.Namespace, key.Name) {
		g.t.Fatal("the Dataset is gone")
	}
	return d
}

func (g *rig) runtime() *v1alpha1.AlluxioRuntime {
	g.t.Helper()
	o := &v1alpha1.AlluxioRuntime{}
	if !g.there(o, key.Namespace, key.Name) {
		g.t.Fatal("the runtime is gone")
	}
	return o
}

// condition is one of the Dataset or its runtime in a line, such as "Ready=False Starting: the masters".
func (g *rig) condition(kind string) string {
	g.t.Helper()
	var all []v1alpha1.Condition
	if d := (&v1alpha1.Dataset{}); g.there(d, key.Namespace, key.Name) {
		all = append(all, d.Status.Conditions...)
	}
	if o := (&v1alpha1.AlluxioRuntime{}); g.there(o, key.Namespace, key.Name) {
		all = append(all, o.Status.Conditions...)
	}
	c := find(all, kind)
	if c.Type == "" {
		return kind + " is not there"
	}
	return fmt.Sprintf("%s=%s %s: %s", kind, c.Status, c.Reason, c.Message)
}

// says has a condition begin with a text, and have others in it.
func (g *rig) says(kind, begin string, texts ...string) {
	g.t.Helper()
	line := g.condition(kind)
	if !strings.HasPrefix(line, kind+begin) {
		g.t.Errorf("%s; want %s%s", line, kind, begin)
	}
	for _, text := range texts {
		if !strings.Contains(line, text) {
			g.t.Errorf("%s: does not say %q", line, text)
		}
	}
}

// newDataset is one of a source, and the runtime of its name.
func newDataset(sources ...string) (*v1alpha1.Dataset, *v1alpha1.AlluxioRuntime) {
	meta := metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
	d, o := &v1alpha1.Dataset{ObjectMeta: meta}, &v1alpha1.AlluxioRuntime{ObjectMeta: meta}
	d.UID, o.UID, d.Generation, o.Generation = "dataset", "runtime", 1, 1
	for i, source := range sources {
		d.Spec.Mounts = append(d.Spec.Mounts, v1alpha1.Mount{MountPoint: source, Name: string(rune('a' + i))})
	}
	quota := resource.MustParse("2Gi")
	o.Spec.Replicas, o.Spec.Master.Replicas = 2, 1
	o.Spec.TieredStore.Levels = []v1alpha1.Level{{MediumType: "MEM", Path: "/dev/shm", Quota: &quota}}
	return d, o
}

// newPod is a pod of Alluxio's on a node of its own.
func newPod(role string, ordinal int) *corev1.Pod {
	set := objects.MasterSetName(key.Name)
	if role == objects.RoleWorker {
		set = objects.WorkerSetName(key.Name)
	}
	name := fmt.Sprintf("%s-%d", set, ordinal)
	labels := objects.PodLabels(key.Name, role)
	labels[objects.ManagedByLabel] = objects.ManagedBy
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name, UID: types.UID(name), Labels: labels},
		Spec:       corev1.PodSpec{NodeName: "node-" + name},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.%d.%d", len(role)%7, ordinal)},
	}
}

// newUser is a pod that uses the claim.
func newUser(name string, phase corev1.PodPhase) *corev1.Pod {
	claim := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: key.Name}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{
			NodeName: "node-" + name,
			Volumes:  []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim}}},
		},
		Status: corev1.PodStatus{Phase: phase},
	}
}

// kinds are the kinds of writes with a verb, without repeats, in their order.
func kinds(did []string, verb string) string {
	var found []string
	for _, write := range did {
		if words := strings.Fields(write); words[0] == verb && !slices.Contains(found, words[1]) {
			found = append(found, words[1])
		}
	}
	return strings.Join(found, " ")
}
