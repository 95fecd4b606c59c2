package controller_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestConflicts has another client write to the specs and to what they become, all the time and faster than the
// controller can answer: whatever it read is old when it writes. It makes everything all the same, and what the others
// wrote stays.
func TestConflicts(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for _, o := range []client.Object{
		&v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "hbase"}},
		&v1alpha1.AlluxioRuntime{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "hbase"}},
		&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "hbase-worker"}},
	} {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				// It is not there yet in the beginning.
				_ = c.Patch(ctx, o,
					mergePatch(map[string]any{"metadata": map[string]any{"annotations": map[string]string{"example.com/n": strconv.Itoa(n)}}}))
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	must(t, c.Patch(t.Context(), alluxio(t, c, ns, "hbase"),
		mergePatch(map[string]any{"spec": map[string]any{"replicas": 4}})))
	eventually(t, "the change has come through, and the status tells so", func() string {
		set := &appsv1.StatefulSet{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase-worker"}, set))
		r := alluxio(t, c, ns, "hbase")
		applied := condition(r.Status.Conditions, v1alpha1.Applied)
		switch {
		case *set.Spec.Replicas != 4:
			return fmt.Sprintf("the StatefulSet has %d replicas", *set.Spec.Replicas)
		case r.Status.DesiredWorkerNumberScheduled != 4 || r.Status.ObservedGeneration != r.Generation:
			return "the status is old"
		case !strings.HasPrefix(applied, "Applied=True"):
			return applied
		case set.Annotations["example.com/n"] == "" || r.Annotations["example.com/n"] == "":
			return "what others wrote has gone"
		}
		return ""
	})
	stop()
	writers.Wait()
}
