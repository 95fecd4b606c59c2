package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API's group, GroupVersion the group with its version.
const Group = "data.fluid.io"

// GroupVersion is what stands as apiVersion in the objects of this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: "v1alpha1"}

// The kinds of the objects.
const (
	DatasetKind        = "Dataset"
	AlluxioRuntimeKind = "AlluxioRuntime"
	DataLoadKind       = "DataLoad"
)

// AddToScheme tells a scheme of the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Dataset{}, &DatasetList{}, &AlluxioRuntime{}, &AlluxioRuntimeList{}, &DataLoad{}, &DataLoadList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
