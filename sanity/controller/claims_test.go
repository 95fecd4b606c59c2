package controller_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/driver"
)

// The server of these tests has Kubernetes' own binder: it writes the annotations of claims, binds, and releases, as in
// a cluster. There is no scheduler, so tests write the node that it would select.

// class makes a StorageClass of a name that no other has, until the test ends. change is merged into it.
func class(t *testing.T, c client.Client, name, change string) *storagev1.StorageClass {
	t.Helper()
	o := &storagev1.StorageClass{}
	for _, text := range []string{`{provisioner: csi.millrace.io, parameters: {source: "https://example.org/data/", quota: 1Gi}}`, change} {
		must(t, sigsyaml.UnmarshalStrict([]byte(text), o))
	}
	o.Name = name
	must(t, c.Create(t.Context(), o))
	removed(t, c, o)
	return o
}

// removed has an object go with the test.
func removed(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Delete(context.WithoutCancel(t.Context()), o)); err != nil {
			t.Error(err)
		}
	})
}

// claim makes a claim of a class. change is merged into it.
func claim(t *testing.T, c client.Client, ns, name, className, change string) *corev1.PersistentVolumeClaim {
	t.Helper()
	o := &corev1.PersistentVolumeClaim{}
	for _, text := range []string{
		"{spec: {accessModes: [ReadOnlyMany], resources: {requests: {storage: 5Gi}}}}",
		change,
	} {
		must(t, sigsyaml.UnmarshalStrict([]byte(text), o))
	}
	o.Namespace, o.Name, o.Spec.StorageClassName = ns, name, &className
	must(t, c.Create(t.Context(), o))
	return o
}

// bound waits until a claim is, and returns its volume.
func bound(t *testing.T, c client.Client, o *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	t.Helper()
	eventually(t, "the claim "+o.Name+" is bound", func() string {
		must(t, c.Get(t.Context(), client.ObjectKeyFromObject(o), o))
		if o.Status.Phase == corev1.ClaimBound {
			return ""
		}
		return fmt.Sprintf("it is %s with %v", o.Status.Phase, told(t, c, o))
	})
	volume := &corev1.PersistentVolume{}
	must(t, c.Get(t.Context(), client.ObjectKey{Name: o.Spec.VolumeName}, volume))
	return volume
}

// told are the Events of ours on a claim.
func told(t *testing.T, c client.Client, o *corev1.PersistentVolumeClaim) []string {
	t.Helper()
	all := &eventsv1.EventList{}
	must(t, c.List(t.Context(), all, client.InNamespace(o.Namespace)))
	var texts []string
	for i := range all.Items {
		if e := &all.Items[i]; e.Regarding.UID == o.UID && e.ReportingController == "millrace" {
			text := e.Type + " " + e.Reason + " " + e.Note
			if e.Series != nil {
				text += fmt.Sprintf(" (%d times)", e.Series.Count)
			}
			texts = append(texts, text)
		}
	}
	return texts
}

// tells waits for an Event of ours on a claim.
func tells(t *testing.T, c client.Client, o *corev1.PersistentVolumeClaim, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the claim %s is told %q", o.Name, want), func() string {
		texts := told(t, c, o)
		if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, want) }) {
			return ""
		}
		return fmt.Sprintf("it is told %q", texts)
	})
}

// unbound fails where a claim has a volume.
func unbound(t *testing.T, c client.Client, o *corev1.PersistentVolumeClaim) {
	t.Helper()
	must(t, c.Get(t.Context(), client.ObjectKeyFromObject(o), o))
	if err := c.Get(t.Context(), client.ObjectKey{Name: "pvc-" + string(o.UID)},
		&corev1.PersistentVolume{}); !apierrors.IsNotFound(err) || o.Spec.VolumeName != "" {
		t.Errorf("the claim %s has the volume %q: %v", o.Name, o.Spec.VolumeName, err)
	}
}

// volumeIs waits until a volume is in a phase.
func volumeIs(t *testing.T, c client.Client, v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase) {
	t.Helper()
	eventually(t, fmt.Sprintf("the volume %s is %s", v.Name, phase), func() string {
		must(t, c.Get(t.Context(), client.ObjectKeyFromObject(v), v))
		if v.Status.Phase != phase {
			return "it is " + string(v.Status.Phase)
		}
		return ""
	})
}

// volumeGone waits for the end of a volume.
func volumeGone(t *testing.T, c client.Client, name string) {
	t.Helper()
	eventually(t, "the volume "+name+" is gone", func() string {
		v := &corev1.PersistentVolume{}
		if err := c.Get(t.Context(), client.ObjectKey{Name: name}, v); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("%v, %s, kept by %v", err, v.Status.Phase, v.Finalizers)
		}
		return ""
	})
}

// counted are the outcomes that the controllers of this process have counted.
func counted(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	must(t, err)
	outcomes := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "millrace_class_volumes_total" {
			for _, m := range f.GetMetric() {
				outcomes[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return outcomes
}

// TestClaims runs a controller with its generated rights: a claim gets a volume of its class, is bound to it, and takes
// it along, or not.
func TestClaims(t *testing.T) {
	s, c := server(t)
	grant(t, c, "claims", "role.yaml")
	ns := namespace(t, c)
	start(t, s, ns, func(config *controller.Config) {
		api, err := s.Config("claims")
		must(t, err)
		config.API = api
	})
	before := counted(t)
	class(t, c, ns+"-plain", "{mountOptions: [umask=0027]}")
	class(t, c, ns+"-retain", `{reclaimPolicy: Retain, parameters: {
		csi.storage.k8s.io/node-stage-secret-name: "${pvc.name}-${pvc.annotations['example.org/key']}", csi.storage.k8s.io/node-stage-secret-namespace: "${pvc.namespace}"}}`)
	class(t, c, ns+"-other", "{provisioner: other.example.org}")

	plain := claim(t, c, ns, "plain", ns+"-plain", "{}")
	kept := claim(t, c, ns, "kept", ns+"-retain", "{metadata: {annotations: {example.org/key: west}}}")
	other := claim(t, c, ns, "other", ns+"-other", "{}")
	elsewhere := claim(t, c, namespace(t, c), "elsewhere", ns+"-plain", "{}")

	v := bound(t, c, plain)
	foreign := v.DeepCopy()
	foreign.ObjectMeta = metav1.ObjectMeta{Name: ns + "-foreign", Labels: v.Labels, Annotations: v.Annotations}
	foreign.Spec.ClaimRef = &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim",
		Namespace: elsewhere.Namespace, Name: "gone", UID: "gone",
	}
	must(t, c.Create(t.Context(), foreign))
	removed(t, c, foreign)
	csi := v.Spec.CSI
	if v.Name != "pvc-"+string(plain.UID) || csi.VolumeHandle != v.Name || csi.Driver != driver.Name ||
		v.Spec.ClaimRef.UID != plain.UID || v.Spec.StorageClassName != ns+"-plain" ||
		v.Annotations["pv.kubernetes.io/provisioned-by"] != driver.Name || csi.NodeStageSecretRef != nil ||
		v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("the volume is %+v", v)
	}
	if got := fmt.Sprint(csi.VolumeAttributes, v.Spec.MountOptions, v.Spec.AccessModes,
		v.Spec.Capacity.Storage()); got != "map[quota:1Gi source:https://example.org/data/] [umask=0027] "+
		"[ReadOnlyMany] 5Gi" {
		t.Error("the volume has " + got)
	}
	tells(t, c, plain, "Normal ProvisioningSucceeded the PersistentVolume "+v.Name+" is made")
	retained := bound(t, c, kept)
	if ref := retained.Spec.CSI.NodeStageSecretRef; ref == nil || ref.Name != "kept-west" || ref.Namespace != ns ||
		len(retained.Spec.CSI.VolumeAttributes) != 2 {
		t.Errorf("the Secret is %v, the attributes are %v", ref, retained.Spec.CSI.VolumeAttributes)
	}

	must(t, c.Delete(t.Context(), plain))
	must(t, c.Delete(t.Context(), kept))
	volumeGone(t, c, v.Name)
	volumeIs(t, c, retained, corev1.VolumeReleased)
	volumeIs(t, c, foreign, corev1.VolumeReleased)
	time.Sleep(time.Second)
	must(t, c.Get(t.Context(), client.ObjectKeyFromObject(retained), retained))
	if retained.DeletionTimestamp != nil {
		t.Error("a volume whose class said Retain is being deleted")
	}
	// An administrator that is done with it may say so afterwards.
	must(t,
		c.Patch(t.Context(), retained,
			mergePatch(map[string]any{"spec": map[string]any{"persistentVolumeReclaimPolicy": "Delete"}})))
	volumeGone(t, c, retained.Name)

	unbound(t, c, other)
	if texts := told(t, c, other); len(texts) > 0 ||
		other.Annotations["volume.kubernetes.io/storage-provisioner"] != "other.example.org" {
		t.Errorf("a claim of another provisioner, annotated with %v, is told %q", other.Annotations, texts)
	}
	unbound(t, c, elsewhere)
	if now := counted(t); now["provisioned"]-before["provisioned"] != 2 || now["deleted"]-before["deleted"] != 2 {
		t.Errorf("two volumes that came and went are counted as %v, after %v", now, before)
	}
	must(t, c.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign))
	if foreign.DeletionTimestamp != nil {
		t.Error("a volume of a namespace that is not served is being deleted")
	}
}

// TestClaimsRefused gives claims and classes that cannot be served. Each is told why, once, and a class that is mended
// serves the claims that waited.
func TestClaimsRefused(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	class(t, c, ns+"-good", "{}")
	bad := class(t, c, ns+"-bad", "{parameters: {quota: many}}")
	option := class(t, c, ns+"-option", "{mountOptions: [rw]}")
	class(t, c, ns+"-reserved", "{parameters: {csi.storage.k8s.io/fstype: ext4}}")
	refused := map[*corev1.PersistentVolumeClaim]string{
		claim(t, c, ns, "quota", ns+"-bad",
			"{}"): `StorageClass ` + bad.Name +
			`: attribute quota "many" is not accepted; accepted is a quantity of bytes above 0 such as 2Gi`,
		claim(t, c, ns, "option", ns+"-option",
			"{}"): `mount option "rw" is not accepted; accepted are ro, uid=NUMBER`,
		claim(t, c, ns, "reserved", ns+"-reserved",
			"{}"): `StorageClass.parameters[csi.storage.k8s.io/fstype] is "ext4"; accepted with that prefix are`,
		claim(t, c, ns, "block", ns+"-good",
			"{spec: {volumeMode: Block}}"): "PersistentVolumeClaim.spec.volumeMode is Block; accepted is Filesystem",
		claim(t, c, ns, "chooses", ns+"-good",
			"{spec: {selector: {matchLabels: {a: "+
				"b}}}}"): "PersistentVolumeClaim.spec.selector is set; accepted is none",
		claim(t, c, ns, "clone", ns+"-good",
			"{spec: {dataSource: {kind: PersistentVolumeClaim, name: "+
				"quota}}}"): "spec.dataSource is the PersistentVolumeClaim quota; accepted is none",
	}
	for o, want := range refused {
		tells(t, c, o, want)
	}
	time.Sleep(time.Second)
	for o := range refused {
		unbound(t, c, o)
		if texts := told(t, c, o); len(texts) != 1 || !strings.HasPrefix(texts[0], "Warning ProvisioningFailed ") ||
			strings.HasSuffix(texts[0], "times)") {
			t.Errorf("the claim %s is told %q, want one warning", o.Name, texts)
		}
	}
	// The parameters of a class cannot be changed: it is made anew.
	must(t, c.Delete(t.Context(), bad))
	class(t, c, bad.Name, "{parameters: {quota: still}}")
	waits := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "quota"}}
	must(t, c.Get(t.Context(), client.ObjectKeyFromObject(waits), waits))
	tells(t, c, waits, `attribute quota "still" is not accepted`)
	must(t, c.Delete(t.Context(), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: bad.Name}}))
	class(t, c, bad.Name, "{}")
	bound(t, c, waits)

	// A class that is another's now is left to it, though the claim still names us.
	must(t, c.Delete(t.Context(), option))
	class(t, c, option.Name, "{provisioner: other.example.org}")
	waits.Name = "option"
	eventually(t, "the binder names the other provisioner", func() string {
		must(t, c.Get(t.Context(), client.ObjectKeyFromObject(waits), waits))
		if by := waits.Annotations["volume.kubernetes.io/storage-provisioner"]; by != "other.example.org" {
			return "it names " + by
		}
		return ""
	})
	unbound(t, c, waits)
}

// TestClaimsWaitForFirstConsumer has a claim wait for a node, and for nothing else.
func TestClaimsWaitForFirstConsumer(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	class(t, c, ns, "{volumeBindingMode: WaitForFirstConsumer}")
	o := claim(t, c, ns, "later", ns, "{}")
	// The scheduler has taken the node back: the provisioner is named, and the node is not.
	back := claim(t, c, ns, "back", ns,
		"{metadata: {annotations: {volume.kubernetes.io/storage-provisioner: csi.millrace.io}}}")
	time.Sleep(2 * time.Second)
	for _, waits := range []*corev1.PersistentVolumeClaim{o, back} {
		unbound(t, c, waits)
		if texts := told(t, c, waits); len(texts) > 0 {
			t.Errorf("a claim that waits for a pod is told %q", texts)
		}
		must(t,
			c.Patch(t.Context(), waits,
				mergePatch(map[string]any{"metadata": map[string]any{"annotations": map[string]string{"volume.kubernetes.io/selected-node": "node1"}}})))
		bound(t, c, waits)
	}
}

// TestClaimsFindVolumes has a volume that was made for the class by hand: the claim takes that one, and none is made.
func TestClaimsFindVolumes(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	class(t, c, ns, "{}")
	theirs := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: ns}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: ns, Capacity: corev1.ResourceList{"storage": quantity("5Gi")},
		AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver.Name, VolumeHandle: ns}},
	}}
	must(t, c.Create(t.Context(), theirs))
	removed(t, c, theirs)
	volumeIs(t, c, theirs, corev1.VolumeAvailable)
	start(t, s, ns, nil)
	time.Sleep(time.Second)
	o := claim(t, c, ns, "finds", ns, "{}")
	if v := bound(t, c, o); v.Name != theirs.Name {
		t.Errorf("it is bound to %s", v.Name)
	}
	time.Sleep(time.Second)
	if texts := told(t, c, o); len(texts) > 0 {
		t.Errorf("it is told %q", texts)
	}
}

// TestClaimsKilled kills the controller between the volume and the Event, and finds what such a one left; and what
// another left under the same name.
func TestClaimsKilled(t *testing.T) {
	s, c := server(t)
	ns := namespace(t, c)
	class(t, c, ns, "{}")
	first := claim(t, c, ns, "first", ns, "{}")
	k := &killer{left: 1, dead: make(chan struct{})}
	stop := start(t, s, ns, func(config *controller.Config) {
		config.API.Wrap(func(next http.RoundTripper) http.RoundTripper {
			k.next = next
			return k
		})
	})
	select {
	case <-k.dead:
	case <-time.After(patience):
		t.Fatal("the controller has not written twice")
	}
	must(t, stop())
	v := bound(t, c, first)

	// Volumes that are too small for the binder, so that their claims stay as they were when the controller was killed.
	left := func(name string, uid func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		o := claim(t, c, ns, name, ns, "{}")
		volume := v.DeepCopy()
		volume.ObjectMeta = metav1.ObjectMeta{Name: "pvc-" + string(o.UID), Annotations: v.Annotations}
		volume.Spec.Capacity, volume.Spec.CSI.VolumeHandle = corev1.ResourceList{"storage": quantity("1Mi")},
			volume.Name
		ref := o.DeepCopy()
		uid(ref)
		volume.Spec.ClaimRef = &corev1.ObjectReference{
			APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: ns,
			Name: ref.Name, UID: ref.UID,
		}
		must(t, c.Create(t.Context(), volume))
		removed(t, c, volume)
		return o
	}
	ours := left("ours", func(*corev1.PersistentVolumeClaim) {})
	theirs := left("theirs", func(o *corev1.PersistentVolumeClaim) { o.Name, o.UID = first.Name, first.UID })
	start(t, s, ns, nil)
	tells(t, c, ours, "Normal ProvisioningSucceeded the PersistentVolume pvc-"+string(ours.UID)+" is made")
	tells(t, c, theirs, "Warning ProvisioningFailed the PersistentVolume pvc-"+string(theirs.UID)+
		" is there already and was not made for this claim; delete it")
	if texts := told(t, c, ours); len(texts) != 1 {
		t.Errorf("it is told %q", texts)
	}
	must(t, c.Delete(t.Context(), first))
	volumeGone(t, c, v.Name)
}

// TestClaimExample applies deploy/examples/storageclass.yaml.
func TestClaimExample(t *testing.T) {
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	kinds := map[string]client.Object{}
	for _, o := range documents(t, "../../deploy/examples/storageclass.yaml") {
		if o.GetKind() != "StorageClass" {
			o.SetNamespace(ns)
		}
		must(t, c.Create(t.Context(), o, strictly))
		removed(t, c, o)
		kinds[o.GetKind()] = o
	}
	if kinds["Pod"] == nil || kinds["PersistentVolumeClaim"] == nil {
		t.Fatalf("the example has %v", kinds)
	}
	o := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: ns,
		Name:      kinds["PersistentVolumeClaim"].GetName(),
	}}
	if v := bound(t, c, o); v.Spec.StorageClassName != kinds["StorageClass"].GetName() {
		t.Errorf("the volume is %+v", v)
	}
}
