package fluid

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// kept is a field of any content, which the API server keeps as it is.
const kept = "spec.runAfter.affinityStrategy."

// TestManifests decodes what the documents apply, with no unknown field, before a cluster does.
func TestManifests(t *testing.T) {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(known); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	words := strings.NewReplacer("{ns}", "ns", "{node1}", "node1", "{node2}", "node2", "{web}", "http://host",
		"{s3}", "http://host", "{s3address}", "http://192.0.2.1", "{key}", "key", "{secret}", "secret")
	if len(applied) < len(strings.Fields(documents)) {
		t.Errorf("only %d manifests are applied", len(applied))
	}
	for _, manifest := range applied {
		for _, text := range strings.Split(words.Replace(manifest), "---\n") {
			_, _, err := decoder.Decode([]byte(text), nil, nil)
			if err != nil && !strings.Contains(err.Error(), kept) {
				t.Errorf("%v: %s", err, text)
			}
		}
	}
}
