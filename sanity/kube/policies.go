package kube

import "strings"

// MutatingPolicies are the arguments by which an API server of this version serves MutatingAdmissionPolicies. From
// Kubernetes 1.36 on all do, as v1.
func MutatingPolicies() []string {
	return []string{
		"--feature-gates=MutatingAdmissionPolicy=true", "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
	}
}

// Served is a manifest for Kubernetes 1.36 with the version in which this one serves MutatingAdmissionPolicies.
func Served(manifest string) string {
	const kind = "\nkind: MutatingAdmissionPolicy"
	return strings.ReplaceAll(manifest, "k8s.io/v1"+kind, "k8s.io/v1beta1"+kind)
}
