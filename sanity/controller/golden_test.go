package controller_test

import (
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// create makes the objects of a file in a namespace.
func create(t *testing.T, c client.Client, ns, file string) []*unstructured.Unstructured {
	t.Helper()
	made := documents(t, file)
	for _, o := range made {
		o.SetNamespace(ns)
		must(t, c.Create(t.Context(), o))
	}
	return made
}

// TestGoldenObjectsAreAccepted applies every object of the golden files.
func TestGoldenObjectsAreAccepted(t *testing.T) {
	_, c := server(t)
	files, err := filepath.Glob("../../controller/objects/testdata/*.golden.yaml")
	must(t, err)
	applied := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ns := namespace(t, c)
			for _, o := range documents(t, file) {
				if o.GetKind() == "" {
					continue
				}
				if o.GetNamespace() != "" {
					o.SetNamespace(ns)
				} else {
					o.SetName(ns + "-" + o.GetName())
				}
				unstructured.RemoveNestedField(o.Object, "status")
				if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o),
					client.FieldOwner("test")); err != nil {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
				}
				applied++
			}
		})
	}
	if applied == 0 {
		t.Fatal("there are no golden objects")
	}
}
