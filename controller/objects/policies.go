package objects

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// networkPolicies let only those in that need to: what reaches a worker's port can plant content in the cache. They
// hold for pods with a network of their own.
func (b *builder) networkPolicies() []Object {
	return []Object{b.networkPolicy(b.names.masters(), RoleMaster), b.networkPolicy(b.names.workers(), RoleWorker)}
}

func (b *builder) networkPolicy(name, role string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: b.meta(name),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: PodLabels(b.names.name, role)},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{
					appLabel:     "alluxio",
					releaseLabel: b.names.name,
				}}},
				{
					NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: b.Settings.Namespace}},
					PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/part-of": "millrace"}},
				},
			}}},
		},
	}
}

// disruptionBudgets let a drain of nodes take one master and one worker at a time.
func (b *builder) disruptionBudgets() []Object {
	return []Object{
		b.disruptionBudget(b.names.masters(), RoleMaster),
		b.disruptionBudget(b.names.workers(), RoleWorker),
	}
}

func (b *builder) disruptionBudget(name, role string) *policyv1.PodDisruptionBudget {
	one := intstr.FromInt32(1)
	always := policyv1.AlwaysAllow
	return &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: b.meta(name),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: PodLabels(b.names.name, role)},
			// A pod that does not serve anyway holds no drain up.
			UnhealthyPodEvictionPolicy: &always,
		},
	}
}
