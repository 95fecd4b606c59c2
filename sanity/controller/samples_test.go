package controller_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestSamples applies what Fluid's users have, with strict validation, so that no field is unknown. Each runtime's
// objects are applied, and what has no effect is named.
func TestSamples(t *testing.T) {
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	var runtimes []string
	for _, o := range documents(t, "testdata/samples.yaml") {
		o.SetNamespace(ns)
		if _, ok, _ := unstructured.NestedString(o.Object, "spec", "dataset", "namespace"); ok {
			must(t, unstructured.SetNestedField(o.Object, ns, "spec", "dataset", "namespace"))
		}
		must(t, c.Create(t.Context(), o, strictly))
		if o.GetKind() == v1alpha1.AlluxioRuntimeKind {
			runtimes = append(runtimes, o.GetName())
		}
	}
	unsupported := map[string]string{
		"hbase":  "AlluxioRuntime.spec.fuse.args",
		"spark":  "AlluxioRuntime.spec.fuse.imagePullSecrets, Dataset.spec.accessModes (the volume is read-only)",
		"hadoop": "AlluxioRuntime.spec.apiGateway, AlluxioRuntime.spec.initUsers, AlluxioRuntime.spec.runAs.group",
	}
	for _, name := range runtimes {
		eventually(t, "the objects of "+name+" are applied", func() string {
			r := alluxio(t, c, ns, name)
			if line := condition(r.Status.Conditions, v1alpha1.Applied); !strings.HasPrefix(line, "Applied=True") {
				return line
			}
			line := condition(r.Status.Conditions, v1alpha1.Unsupported)
			want := unsupported[name]
			if want == "" && line != "Unsupported is not there" || want != "" && !strings.HasSuffix(line, ": "+want) {
				return line
			}
			return ""
		})
	}
}
