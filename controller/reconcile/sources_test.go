package reconcile

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/controller/trouble"
)

// served is a world in which all is well: a bound Dataset of one source, with something cached.
func served() (*world, *outcome) {
	set := func() *appsv1.StatefulSet {
		return &appsv1.StatefulSet{Status: appsv1.StatefulSetStatus{ReadyReplicas: 1}}
	}
	w := &world{
		dataset: &v1alpha1.Dataset{}, runtime: &v1alpha1.AlluxioRuntime{}, masters: set(), workers: set(),
		claim: &corev1.PersistentVolumeClaim{},
		pods:  []corev1.Pod{{Status: corev1.PodStatus{PodIP: "10.0.0.1"}}},
	}
	w.runtime.Spec.Replicas = 1
	w.clusters = masters.State{
		Asked: true, Leader: "m:1", Mounted: true, Used: 100, Workers: []masters.Worker{{}},
		Roles:   map[string]rpc.Role{"m:1": rpc.Leading},
		Sources: map[string]masters.SourceVerdict{"/z": {State: gateway.Reached}},
	}
	plan := &objects.Plan{
		Masters: []string{"m:1"}, Sources: []objects.Source{{
			Name: "z", Address: "https://a.example/b/", Path: "/z",
			Gateway: true, Secrets: "web (user, pass)",
		}},
	}
	return w, &outcome{plan: plan}
}

// TestReady has one thing after the other go wrong, and looks what is said of it, and that the phase tells whether
// Alluxio serves what it has.
func TestReady(t *testing.T) {
	source := func(v masters.SourceVerdict) func(*world, *outcome) {
		return func(w *world, _ *outcome) { w.clusters.Sources["/z"] = v }
	}
	crash := trouble.Trouble{Reason: trouble.Crash, Message: "the container gateway-1 ended with exit code 1"}
	const bound, failed = v1alpha1.Bound, v1alpha1.FailedPhase
	for name, tc := range map[string]struct {
		change func(*world, *outcome)
		reason string
		phase  v1alpha1.DatasetPhase
		says   []string
	}{
		"well": {func(*world, *outcome) {}, "DatasetReady", bound, []string{"served by m:1"}},
		"source down": {
			source(masters.SourceVerdict{State: gateway.Unreached, Message: "a refuses the connection"}),
			SourceUnreached, bound,
			[]string{
				"https://a.example/b/", "the mount z", "is not reached: a refuses",
				"; what is cached is served",
			},
		},
		"unknown CA": {
			source(masters.SourceVerdict{
				State:   gateway.Untrusted,
				Message: "x509; name its authority with the option ca_cert",
			}), SourceUntrusted, bound,
			[]string{"is not trusted", "ca_cert"},
		},
		"wrong keys": {
			source(masters.SourceVerdict{State: gateway.Refused, Message: "403"}), SourceRefuses, bound,
			[]string{"refuses the keys of the Secret web (user, pass): 403"},
		},
		"rotated keys": {
			source(masters.SourceVerdict{State: gateway.Refused, Message: "403", Stale: true}), SourceRefuses, bound,
			[]string{"on their way"},
		},
		"no keys": {func(w *world, o *outcome) {
			o.plan.Sources[0].Secrets = ""
			source(masters.SourceVerdict{State: gateway.Refused, Message: "403"})(w, o)
		}, SourceRefuses, bound, []string{"names no Secret", "encryptOptions"}},
		"no such option": {
			source(masters.SourceVerdict{State: gateway.Failed, Message: `option "x" is not known`}), SourceFailed,
			bound,
			[]string{`cannot be read: option "x"`},
		},
		"gateway is away": {
			source(masters.SourceVerdict{State: masters.Silent, Message: "connection refused"}), GatewaySilent, bound,
			[]string{"the gateway to https://a.example/b/", "connection refused"},
		},
		"nothing is known": {func(w *world, _ *outcome) { w.clusters.Sources = nil }, "", bound, nil},
		"gateway crashes": {func(w *world, o *outcome) {
			source(masters.SourceVerdict{State: masters.Silent, Message: "connection refused"})(w, o)
			o.trouble.masters, w.masters.Status.ReadyReplicas = crash, 0
		}, trouble.Crash, bound, []string{"gateway-1 ended"}},
		"the only worker cannot run": {
			func(w *world, o *outcome) { o.trouble.workers, w.workers.Status.ReadyReplicas = crash, 0 },
			trouble.Crash, bound, nil,
		},
		"one of the workers cannot": {
			func(_ *world, o *outcome) { o.trouble.workers = crash }, "DatasetReady", bound, nil,
		},
		"a master and all workers": {func(w *world, o *outcome) {
			o.trouble.masters = trouble.Trouble{Reason: trouble.ImagePull, Message: "one of three"}
			o.trouble.workers, w.workers.Status.ReadyReplicas = crash, 0
		}, trouble.Crash, bound, nil},
		"masters disagree": {
			func(w *world, _ *outcome) { w.clusters.Disagree, w.clusters.Err = true, "a and b lead" },
			"MastersDisagree", bound,
			[]string{"a and b lead"},
		},
		"no leader": {func(w *world, _ *outcome) { w.clusters.Err = "no master leads" }, "NoLeader", bound, nil},
		"no worker": {func(w *world, _ *outcome) { w.clusters.Workers = nil }, "NoWorker", bound, nil},
		"another pod's worker": {func(w *world, _ *outcome) {
			w.clusters.Workers = []masters.Worker{{Address: "10.0.0.8:29999"}}
			w.pods = append(w.pods,
				corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{roleLabel: objects.RoleWorker}},
					Status:     corev1.PodStatus{PodIP: "10.0.0.9"},
				})
		}, "NoWorker", bound, nil},
		"not mounted for its source": {func(w *world, o *outcome) {
			source(masters.SourceVerdict{State: gateway.Untrusted, Message: "x509"})(w, o)
			w.clusters.Mounted, w.clusters.MountErr = false, "Alluxio says no"
		}, SourceUntrusted, failed, []string{"is not trusted: x509", "; Alluxio says no"}},
		"two sources": {func(w *world, o *outcome) {
			o.plan.Sources = append(o.plan.Sources, objects.Source{Name: "y", Path: "/y"})
			w.clusters.Used = 0
			w.clusters.Sources["/y"] = masters.SourceVerdict{State: gateway.Refused}
			source(masters.SourceVerdict{State: gateway.Unreached})(w, o)
		}, SourceUnreached, bound, []string{"; another source cannot be read either"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, out := served()
			w.dataset.Status.Phase = v1alpha1.Bound
			w.dataset.Status.Conditions = []v1alpha1.Condition{{
				Type: v1alpha1.Ready, Status: corev1.ConditionTrue,
				LastTransitionTime: metav1.NewTime(time.Now().Add(-time.Hour)),
			}}
			tc.change(w, out)
			s := datasetStatus(w, out, time.Now())
			ready := find(s.Conditions, v1alpha1.Ready)
			if want := tc.reason == "DatasetReady" || tc.reason == ""; ready.Reason != tc.reason ||
				(ready.Status == corev1.ConditionTrue) != want || s.Phase != tc.phase {
				t.Errorf("the phase is %s, Ready is %s %s: %s", s.Phase, ready.Status, ready.Reason, ready.Message)
			}
			for _, text := range tc.says {
				if !strings.Contains(ready.Message, text) {
					t.Errorf("%q does not say %q", ready.Message, text)
				}
			}
			if strings.Contains(ready.Message, "cached") && w.clusters.Used == 0 {
				t.Errorf("%q speaks of a cache that is empty", ready.Message)
			}
		})
	}
}

// TestNotAskedYet waits for the sources where the Dataset is new, and says of one that was bound what it said before.
func TestNotAskedYet(t *testing.T) {
	w, out := served()
	w.clusters.Sources = nil
	if s := datasetStatus(w, out, time.Now()); s.Phase != v1alpha1.NotBound || find(s.Conditions,
		v1alpha1.Ready).Reason != asking {
		t.Errorf("a new one is %s, %+v", s.Phase, s.Conditions)
	}
	before := v1alpha1.Condition{
		Type: v1alpha1.Ready, Status: corev1.ConditionFalse, Reason: SourceUnreached, Message: "down",
		LastTransitionTime: metav1.NewTime(time.Now().Add(-time.Hour)),
	}
	w.dataset.Status.Phase, w.dataset.Status.Conditions = v1alpha1.Bound, []v1alpha1.Condition{before}
	for _, state := range []masters.State{w.clusters, {}} {
		w.clusters = state
		s := datasetStatus(w, out, time.Now())
		if ready := find(s.Conditions, v1alpha1.Ready); s.Phase != v1alpha1.Bound ||
			ready.Reason != SourceUnreached || ready.Message != "down" {
			t.Errorf("one that was bound is %s, %+v", s.Phase, ready)
		}
	}
}

// TestRenewal tells a pod of other options once, and again after a while where its gateway has old ones.
func TestRenewal(t *testing.T) {
	now := time.Unix(1e9, 0)
	for name, tc := range map[string]struct {
		have  string
		stale bool
		due   bool
	}{
		"never told":              {"", false, true},
		"told":                    {"new.999999000", false, false},
		"told of others":          {"old.999999999", false, true},
		"told just now":           {"new.999999999", true, false},
		"told, and not read":      {"new.999999990", true, true},
		"told by somebody":        {"new", true, true},
		"told by somebody, quiet": {"new", false, false},
	} {
		if value, due := renewal(tc.have, "new", tc.stale, now); due != tc.due || due && value != "new.1000000000" {
			t.Errorf("%s: %q, %v", name, value, due)
		}
	}
}

// TestSecretsAreReadSooner where a source refuses what is in them.
func TestSecretsAreReadSooner(t *testing.T) {
	r := &Reconciler{}
	w, _ := served()
	if age := r.secretAge(w.clusters); age != standardSecretAge {
		t.Errorf("a Secret is believed for %v", age)
	}
	w.clusters.Sources["/z"] = masters.SourceVerdict{State: gateway.Refused}
	if age := r.secretAge(w.clusters); age != absentAge {
		t.Errorf("a Secret of a source that is ill is believed for %v", age)
	}
}

// TestSeen differs when something has happened to the pods, and not for their conditions.
func TestSeen(t *testing.T) {
	w, _ := served()
	before := w.seen()
	w.pods[0].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady}}
	if w.seen() != before {
		t.Error("a condition counts")
	}
	w.pods[0].Status.ContainerStatuses = []corev1.ContainerStatus{{}}
	if w.seen() == before {
		t.Error("a container that has ended does not count")
	}
}
