package objects

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWithoutEffect tells Fluid's labels and annotations from all others.
func TestWithoutEffect(t *testing.T) {
	o := &metav1.ObjectMeta{
		Labels: map[string]string{
			"fuse.serverful.fluid.io/inject": "true", "fluid.io/dataset.hbase.sched": "required",
			"app": "nginx", "notfluid.io/inject": "", "fluid.io": "",
		},
		Annotations: map[string]string{
			CapacityAnnotation: "1Ti", "file-prefetcher.fluid.io/inject": "true", "example.org/x": "fluid.io/x",
		},
	}
	want := []string{
		"annotations[file-prefetcher.fluid.io/inject]",
		"labels[fluid.io/dataset.hbase.sched]", "labels[fuse.serverful.fluid.io/inject]",
	}
	if got := WithoutEffect(o); !slices.Equal(got, want) {
		t.Errorf("without effect are %q, want %q", got, want)
	}
}
