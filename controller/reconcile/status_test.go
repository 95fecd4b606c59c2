package reconcile

import (
	"testing"
	"time"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// TestSizeOfASource looks at what the status has of a source's size before it is known.
func TestSizeOfASource(t *testing.T) {
	for name, tc := range map[string]struct {
		wanted, known bool
		want          string
	}{
		"being found out":     {true, false, "[Calculating]"},
		"not to be found out": {false, false, ""},
		"known":               {true, true, "5.00MiB"},
		"known from before":   {false, true, "5.00MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{
				dataset: &v1alpha1.Dataset{}, runtime: &v1alpha1.AlluxioRuntime{},
				clusters: masters.State{Asked: true, Sized: tc.known, Total: 5 << 20},
			}
			out := &outcome{plan: &objects.Plan{Masters: []string{"m:1"}, Sized: tc.wanted}}
			if got := datasetStatus(w, out, time.Now()).UfsTotal; got != tc.want {
				t.Errorf("the size is %q, want %q", got, tc.want)
			}
		})
	}
}
