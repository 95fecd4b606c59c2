package controller_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/sanity/kube"
)

// TestAPIServerAway takes the API server away for a while, a minute where time is no matter, and changes a spec when it
// is back. The controller runs on as the same process, and has changed nothing else.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	needKube(t)
	s := kube.ForTest(t, kube.Options{})
	c := withCRDs(t, s)
	installAPI(t, c)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	create(t, c, ns, walkthrough)
	replicas := func(n int32) func() string {
		return func() string {
			set := &appsv1.StatefulSet{}
			if err := c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase-worker"}, set); err != nil {
				return err.Error()
			}
			if *set.Spec.Replicas != n {
				return "it has other replicas"
			}
			return ""
		}
	}
	eventually(t, "the StatefulSet is there", replicas(2))
	before := settled(t, c, ns)
	must(t, s.StopAPI())
	if long() {
		time.Sleep(time.Minute)
	} else {
		time.Sleep(5 * time.Second)
	}
	must(t, s.StartAPI(t.Context()))
	must(t, c.Patch(t.Context(), alluxio(t, c, ns, "hbase"),
		mergePatch(map[string]any{"spec": map[string]any{"replicas": 4}})))
	eventually(t, "the StatefulSet follows", replicas(4))
	after := settled(t, c, ns)
	delete(before, "StatefulSet hbase-worker")
	delete(after, "StatefulSet hbase-worker")
	if !maps.Equal(before, after) {
		t.Errorf("objects were changed: before\n%v\nafter\n%v", before, after)
	}
}

// TestWebhookRefuses has a webhook that does not answer, then a policy that refuses, in the way of StatefulSets. The
// condition says so, other Datasets go on, and the objects come when the way is free.
func TestWebhookRefuses(t *testing.T) {
	s, c := server(t)
	for name, tc := range map[string]struct{ manifest, says string }{
		"webhook": {`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: NS}
webhooks:
- name: deaf.example.org
  clientConfig: {url: "https://127.0.0.1:1/"}
  failurePolicy: Fail
  timeoutSeconds: 1
  sideEffects: None
  admissionReviewVersions: [v1]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NS}}
  rules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [statefulsets]}]
`, "deaf.example.org"},
		"policy": {`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NS}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NS}}
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [statefulsets]}]
  validations: [{expression: "false", message: "no stateful things here"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NS}
spec: {policyName: NS, validationActions: [Deny]}
`, "no stateful things here"},
	} {
		t.Run(name, func(t *testing.T) {
			ns, other := namespace(t, c), namespace(t, c)
			ways := parse(t, strings.ReplaceAll(tc.manifest, "NS", ns))
			for _, o := range ways {
				must(t, c.Create(t.Context(), o))
			}
			// It takes the API server a moment to hold to it.
			eventually(t, "it holds", func() string {
				set := documents(t, "../../controller/objects/testdata/minimal.golden.yaml")
				for _, o := range set {
					if o.GetKind() == "StatefulSet" {
						o.SetNamespace(ns)
						if err := c.Create(t.Context(), o, client.DryRunAll); err == nil {
							return "a StatefulSet can be made"
						}
					}
				}
				return ""
			})
			start(t, s, "", nil)
			create(t, c, ns, walkthrough)
			create(t, c, other, walkthrough)
			eventually(t, "the condition says what happened", func() string {
				line := condition(alluxio(t, c, ns, "hbase").Status.Conditions, v1alpha1.Applied)
				if strings.HasPrefix(line, "Applied=False") && strings.Contains(line, tc.says) &&
					strings.Contains(line, "StatefulSet hbase-master") {
					return ""
				}
				return line
			})
			complete(t, c, other)
			for _, o := range ways {
				must(t, c.Delete(t.Context(), o))
			}
			complete(t, c, ns)
		})
	}
}

// TestQuotaExceeded has a quota that leaves no room for Services, until it is taken away.
func TestQuotaExceeded(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "few"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/services": quantity("1")}},
		Status: corev1.ResourceQuotaStatus{
			Hard: corev1.ResourceList{"count/services": quantity("1")},
			Used: corev1.ResourceList{"count/services": quantity("0")},
		},
	}
	must(t, c.Create(t.Context(), quota))
	// There is no quota controller to begin the counting.
	quota.Status = corev1.ResourceQuotaStatus{
		Hard: quota.Spec.Hard,
		Used: corev1.ResourceList{"count/services": quantity("0")},
	}
	must(t, c.Status().Update(t.Context(), quota))
	start(t, s, ns, nil)
	create(t, c, ns, walkthrough)
	eventually(t, "the condition says what happened", func() string {
		line := condition(alluxio(t, c, ns, "hbase").Status.Conditions, v1alpha1.Applied)
		if strings.HasPrefix(line, "Applied=False Forbidden") && strings.Contains(line, "exceeded quota") &&
			strings.Contains(line, "Service hbase-master-1") {
			return ""
		}
		return line
	})
	must(t, c.Delete(t.Context(), quota))
	complete(t, c, ns)
}
