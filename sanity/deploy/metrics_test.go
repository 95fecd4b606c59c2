package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/controller"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/sanity/kube"
)

// family is what a page of metrics tells of one name: the values of each label.
type family map[string]map[string]bool

// scrape reads a page of metrics as Prometheus does; a histogram is there under the names of its parts.
func scrape(t *testing.T, url string, into map[string]family) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	page, err := parser.TextToMetricFamilies(resp.Body)
	must(t, err)
	for name, f := range page {
		labels := family{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if labels[l.GetName()] == nil {
					labels[l.GetName()] = map[string]bool{}
				}
				labels[l.GetName()][l.GetValue()] = true
			}
		}
		into[name] = labels
		if f.GetType().String() == "HISTOGRAM" {
			into[name+"_bucket"], into[name+"_sum"], into[name+"_count"] = labels, labels, labels
			labels["le"] = map[string]bool{}
		}
	}
}

// agentPage is where an agent with a mount tells its metrics. Only the kernel is missing: what it would have asked is
// given.
func agentPage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "source"), 0o700))
	store, err := ufs.Open(t.Context(), filepath.Join(dir, "source"), ufs.Options{})
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	cache, err := embedded.New(store, embedded.Config{Levels: []embedded.LevelConfig{{
		Dir:   filepath.Join(dir, "tier"),
		Quota: 16 << 20,
	}}})
	must(t, err)
	t.Cleanup(func() { _ = cache.Close() })
	server := agent.New(slog.New(slog.DiscardHandler))
	stats := func() fuse.Stats {
		return fuse.Stats{Ops: map[string]fuse.OpStats{"read": {Count: 1}}, Errnos: map[string]int64{"EIO": 1}}
	}
	must(t, server.Add(agent.Mount{
		Dir: filepath.Join(dir, "mnt"), Name: "mnt", Source: "source", Started: time.Now(),
		Client: cache, Stats: stats,
	}))
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- server.ServeProbes(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/metrics"
}

// controllerPage is where a controller that works tells its metrics.
func controllerPage(t *testing.T) string {
	t.Helper()
	s := shared.Get(t)
	kubectl(t, s, "apply", "--server-side", "-f", root+"/deploy/crd")
	kubectl(t, s, "wait", "--for=condition=Established", "-f", root+"/deploy/crd")
	if out, err := s.Kubectl(t.Context(), "create", "namespace", "metrics"); err != nil &&
		!strings.Contains(out, "AlreadyExists") {
		t.Fatal(err, out)
	}
	// Without a runtime it gets no finalizer, and keeps no CRD from going.
	kubectl(t, s, "-n", "metrics", "apply", "-f", file(t,
		"{apiVersion: data.fluid.io/v1alpha1, kind: Dataset, metadata: {name: waits}, spec: {mounts: [{mountPoint: "+
			"'https://example.org/'}]}}"))
	api, err := s.Admin()
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	log := slog.New(slog.DiscardHandler)
	controller.SetLog(log)
	go func() {
		ended <- controller.Run(ctx, controller.Config{
			API: api, Elect: true, Log: log, Settings: objects.Settings{
				AlluxioImage: "a:1", MillraceImage: "m:1",
				Driver: "csi.millrace.io", Namespace: "metrics",
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	page := httptest.NewServer(promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{}))
	t.Cleanup(page.Close)
	eventually(t, "the controller leads", func() string {
		found := map[string]family{}
		scrape(t, page.URL, found)
		if found["millrace_datasets"]["phase"]["Failed"] && found["controller_runtime_reconcile_errors_total"] != nil &&
			found["workqueue_depth"] != nil {
			return ""
		}
		return "it has not begun"
	})
	return page.URL
}

// given are the labels that Prometheus, or the ServiceMonitor, adds.
var given = []string{"job", "node", "pod", "namespace", "instance", "component"}

// TestMetricsExist looks for each metric, label and value of the rules and the dashboard on the pages of a real agent
// and a real controller.
func TestMetricsExist(t *testing.T) {
	kube.Need(t)
	known := map[string]family{"up": {}}
	scrape(t, agentPage(t), known)
	scrape(t, controllerPage(t), known)
	queries := expressions(t)
	if len(queries) < 20 {
		t.Fatalf("found only %d expressions", len(queries))
	}
	for where, query := range queries {
		parsed, err := metricsql.Parse(query)
		if err != nil {
			t.Errorf("%s: %q: %v", where, query, err)
			continue
		}
		metricsql.VisitAll(parsed, func(e metricsql.Expr) {
			switch e := e.(type) {
			case *metricsql.MetricExpr:
				for _, filters := range e.LabelFilterss {
					checkSelector(t, where, filters, known)
				}
			case *metricsql.AggrFuncExpr:
				checkGrouping(t, where, e, known)
			}
		})
	}
}

// checkSelector looks for a metric with its labels.
func checkSelector(t *testing.T, where string, filters []metricsql.LabelFilter, known map[string]family) {
	t.Helper()
	name := filters[0].Value
	labels, ok := known[name]
	if filters[0].Label != "__name__" || !ok {
		t.Errorf("%s: there is no metric %s", where, name)
		return
	}
	for _, f := range filters[1:] {
		if slices.Contains(given, f.Label) {
			continue
		}
		if values, ok := labels[f.Label]; !ok || !f.IsRegexp && !values[f.Value] {
			t.Errorf("%s: %s has no %s=%q, but %v", where, name, f.Label, f.Value, labels)
		}
	}
}

// checkGrouping looks for the labels by which a sum is kept apart.
func checkGrouping(t *testing.T, where string, e *metricsql.AggrFuncExpr, known map[string]family) {
	t.Helper()
	metricsql.VisitAll(e, func(inner metricsql.Expr) {
		m, ok := inner.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		name := m.LabelFilterss[0][0].Value
		for _, label := range e.Modifier.Args {
			if _, ok := known[name][label]; !ok && !slices.Contains(given, label) {
				t.Errorf("%s: %s has no label %s", where, name, label)
			}
		}
	})
}

var (
	variable = regexp.MustCompile(`\$\{?(node|source)\}?`)
	interval = regexp.MustCompile(`\$__rate_interval`)
)

// expressions are those of the rules and the dashboard, by where they are.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, r := range rules(t) {
		all["alert "+r.Alert] = r.Expr.String()
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	must(t, json.Unmarshal([]byte(text(t, "deploy/chart/files/dashboard.json")), &dashboard))
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all["panel "+p.Title+" "+target.RefID] = interval.ReplaceAllString(variable.ReplaceAllString(target.Expr,
				".*"), "5m")
		}
	}
	return all
}

// rules are the alerts, read as strictly as the Prometheus Operator's API server does.
func rules(t *testing.T) []monitoringv1.Rule {
	t.Helper()
	var spec monitoringv1.PrometheusRuleSpec
	must(t, sigsyaml.UnmarshalStrict([]byte(text(t, "deploy/chart/files/rules.yaml")), &spec))
	var all []monitoringv1.Rule
	for _, g := range spec.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// TestMonitoringObjects reads what is for the Prometheus Operator into its own types, which know no other field.
func TestMonitoringObjects(t *testing.T) {
	kinds := map[string]any{
		"ServiceMonitor": &monitoringv1.ServiceMonitor{},
		"PrometheusRule": &monitoringv1.PrometheusRule{},
	}
	services := map[string]string{}
	for _, o := range render(t, "monitoring.prometheus=true", "monitoring.labels.release=kube-prometheus") {
		if o.GetKind() == "Service" {
			ports, _, _ := unstructuredPorts(o.Object)
			services[o.GetName()] = ports
		}
		into, ok := kinds[o.GetKind()]
		if !ok {
			continue
		}
		delete(kinds, o.GetKind())
		raw, err := json.Marshal(o.Object)
		must(t, err)
		strict := json.NewDecoder(bytes.NewReader(raw))
		strict.DisallowUnknownFields()
		if err := strict.Decode(into); err != nil {
			t.Errorf("%s: %v", o.GetKind(), err)
		}
		if _, err := runtime.DefaultUnstructuredConverter.ToUnstructured(into); err != nil {
			t.Error(err)
		}
		if o.GetLabels()["release"] != "kube-prometheus" {
			t.Errorf("%s has the labels %v", o.GetKind(), o.GetLabels())
		}
		if m, ok := into.(*monitoringv1.ServiceMonitor); ok && m.Spec.Endpoints[0].Port != "metrics" {
			t.Errorf("the ServiceMonitor asks the port %s", m.Spec.Endpoints[0].Port)
		}
	}
	if len(kinds) > 0 {
		t.Errorf("not rendered: %v", slices.Collect(maps.Keys(kinds)))
	}
	// The alerts name jobs, which are the Services' names.
	for where, query := range expressions(t) {
		for _, m := range regexp.MustCompile(`job=~?"([^"]+)"`).FindAllStringSubmatch(query, -1) {
			for job := range strings.SplitSeq(m[1], "|") {
				if services[job] != "metrics" {
					t.Errorf("%s names the job %s; the Services are %v", where, job, services)
				}
			}
		}
	}
}

// unstructuredPorts is the name of the first port of a Service.
func unstructuredPorts(o map[string]any) (name string, found bool, err error) {
	var service struct {
		Spec struct{ Ports []struct{ Name string } }
	}
	raw, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(raw, &service)
	}
	if err != nil || len(service.Spec.Ports) == 0 {
		return "", false, err
	}
	return service.Spec.Ports[0].Name, true, nil
}
