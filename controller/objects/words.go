package objects

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// OfFluid reports whether a label or an annotation is one of Fluid's, by which its users ask for something.
func OfFluid(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	return ok && (domain == "fluid.io" || strings.HasSuffix(domain, ".fluid.io"))
}

// heeded are the labels and annotations of Fluid's that do here what they do there.
var heeded = map[string]bool{CapacityAnnotation: true}

// WithoutEffect are the labels and annotations of an object by which a user asks Fluid for something that is not done
// here, such as annotations[file-prefetcher.fluid.io/inject].
func WithoutEffect(o metav1.Object) []string {
	var found []string
	for field, all := range map[string]map[string]string{"labels": o.GetLabels(), "annotations": o.GetAnnotations()} {
		for key := range all {
			if OfFluid(key) && !heeded[key] {
				found = append(found, field+"["+key+"]")
			}
		}
	}
	slices.Sort(found)
	return found
}

// metadataWithoutEffect are those of the Dataset and its runtime, by their paths.
func metadataWithoutEffect(in Input) []string {
	var paths []string
	for _, field := range WithoutEffect(in.Dataset) {
		paths = append(paths, "Dataset.metadata."+field)
	}
	for _, field := range WithoutEffect(in.Runtime) {
		paths = append(paths, "AlluxioRuntime.metadata."+field)
	}
	return paths
}
