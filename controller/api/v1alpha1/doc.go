// Package v1alpha1 is the API that users write: Dataset, AlluxioRuntime and DataLoad of the group data.fluid.io/v1alpha1.
//
// The names of fields, columns, short names and phases are those of Fluid's API, so that YAML written for it works
// unchanged. What is added is said so at the field. The comments of the fields are what `kubectl explain` shows, and the
// manifests in deploy/crd are generated from this package by `make generate`.
//
// The API server refuses what is wrong in itself (markers at the fields, in CEL where a pattern does not do), with
// the path of the field. What needs other objects to tell, such as a Secret that is missing, ends in a condition.
//
// +kubebuilder:object:generate=true
// +groupName=data.fluid.io
package v1alpha1
