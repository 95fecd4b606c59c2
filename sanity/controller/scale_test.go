package controller_test

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/sanity/kube"
)

// counter counts requests to the API server.
type counter struct {
	next http.RoundTripper
	n    *atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

// TestScaleOfMany makes many Datasets at once: 20, or MILLRACE_DATASETS of them.
func TestScaleOfMany(t *testing.T) {
	t.Parallel()
	n := 20
	if text := os.Getenv("MILLRACE_DATASETS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
	}
	// Without Kubernetes' own controllers, whose work on two cores would be measured too.
	needKube(t)
	s := kube.ForTest(t, kube.Options{})
	api, err := s.Admin()
	must(t, err)
	scheme, err := controller.Scheme()
	must(t, err)
	c, err := client.New(api, client.Options{Scheme: scheme})
	must(t, err)
	apiClient := withCRDs(t, s)
	installAPI(t, apiClient)
	ns := namespace(t, apiClient)
	for i := range n {
		for _, o := range documents(t, walkthrough) {
			o.SetNamespace(ns)
			o.SetName(fmt.Sprintf("hbase-%d", i))
			must(t, c.Create(t.Context(), o))
		}
	}
	var requests atomic.Int64
	begun := time.Now()
	start(t, s, "", func(config *controller.Config) {
		config.Fast, config.Slow = 0, 0
		config.API.Wrap(func(next http.RoundTripper) http.RoundTripper { return &counter{next, &requests} })
	})
	deadline := begun.Add(10 * time.Minute)
	for {
		sets := &appsv1.StatefulSetList{}
		must(t, c.List(t.Context(), sets, client.InNamespace(ns)))
		if len(sets.Items) == 2*n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d StatefulSets after %v", len(sets.Items), 2*n, time.Since(begun))
		}
		time.Sleep(200 * time.Millisecond)
	}
	took := time.Since(begun)
	all := requests.Load()
	time.Sleep(5 * time.Second)
	settled, quiet := requests.Load(), 10*time.Second
	time.Sleep(quiet)
	rate := float64(requests.Load()-settled) / quiet.Seconds()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	// The p99 of few samples is their worst.
	var worst time.Duration
	for i := range min(n, 20) {
		worst = max(worst, change(t, c, ns, fmt.Sprintf("hbase-%d", i)))
	}
	t.Logf("%d Datasets: reconciled in %v by %d requests; then %.2f requests a second; heap %d MiB; a change is "+
		"applied within %v",
		n, took.Round(100*time.Millisecond), all, rate, memory.HeapInuse>>20, worst.Round(time.Millisecond))
	if rate > 1 {
		t.Errorf("%.2f requests a second while nothing happens; at most 1", rate)
	}
}

// change changes a runtime, and returns how long it takes until its StatefulSet is changed.
func change(t *testing.T, c client.Client, ns, name string) time.Duration {
	t.Helper()
	r := alluxio(t, c, ns, name)
	begun := time.Now()
	must(t, c.Patch(t.Context(), r, mergePatch(map[string]any{"spec": map[string]any{"replicas": 5}})))
	eventually(t, "the StatefulSet follows", func() string {
		set := &appsv1.StatefulSet{}
		must(t, c.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: name + "-worker"}, set))
		if *set.Spec.Replicas == 5 {
			return ""
		}
		return "not yet"
	})
	return time.Since(begun)
}
