package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// phases counts the Datasets by their phases, from the cache, whenever metrics are asked for.
type phases struct{ reader client.Reader }

var phasesDesc = prometheus.NewDesc("millrace_datasets", "Number of Datasets, by their phase.", []string{"phase"}, nil)

// Describe implements prometheus.Collector.
func (p phases) Describe(out chan<- *prometheus.Desc) { out <- phasesDesc }

// Collect implements prometheus.Collector.
func (p phases) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var all v1alpha1.DatasetList
	if err := p.reader.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		// The cache is not there yet.
		return
	}
	counts := map[v1alpha1.DatasetPhase]int{
		v1alpha1.NotBound: 0, v1alpha1.Bound: 0, v1alpha1.Updating: 0,
		v1alpha1.FailedPhase: 0,
	}
	for i := range all.Items {
		phase := all.Items[i].Status.Phase
		if phase == "" {
			phase = v1alpha1.NotBound
		}
		counts[phase]++
	}
	for phase, n := range counts {
		out <- prometheus.MustNewConstMetric(phasesDesc, prometheus.GaugeValue, float64(n), string(phase))
	}
}

// Metrics has the process tell of the Datasets that reader knows, until the context ends. Of several controllers in one
// process the first one tells.
func Metrics(ctx context.Context, reader client.Reader) error {
	collector := phases{reader}
	err := metrics.Registry.Register(collector)
	if twice := (prometheus.AlreadyRegisteredError{}); errors.As(err, &twice) {
		return nil
	}
	if err == nil {
		context.AfterFunc(ctx, func() { metrics.Registry.Unregister(collector) })
	}
	return err
}
