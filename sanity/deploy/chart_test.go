package deploy_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	sigsyaml "sigs.k8s.io/yaml"
)

// TestLint has Helm look at the chart.
func TestLint(t *testing.T) {
	for _, values := range []string{"createNamespace=false", "monitoring.prometheus=true,monitoring.dashboard=true"} {
		if out, err := helm(t, "lint", "--strict", "--set", values, chart); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// TestRenderedIsCurrent compares the base and the overlay with what the chart is rendered to now.
func TestRenderedIsCurrent(t *testing.T) {
	needHelm(t)
	if out, err := exec.CommandContext(t.Context(), root+"/deploy/render.sh", "-check").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestWrongValues gives values that are refused, by a line that names them.
func TestWrongValues(t *testing.T) {
	for _, tc := range []struct{ set, says string }{
		{"replicas=3", "additional properties 'replicas' not allowed"},
		{"controller.replicas=0", "at '/controller/replicas': minimum: got 0, want 1"},
		{"controller.replicas=two", "at '/controller/replicas': got string, want integer"},
		{
			"controller.resources.limits.gpu=1",
			"at '/controller/resources/limits': additional properties 'gpu' not allowed",
		},
		{"tierDirs={dev/shm}", "at '/tierDirs/0': 'dev/shm' does not match"},
		{"tierDirs=null", "missing property 'tierDirs'"},
		{"kubeletDir=/var/../etc", "at '/kubeletDir': '/var/../etc' does not match"},
		{"image=millrace", "at '/image': 'millrace' does not match"},
		{"alluxioImage=", "at '/alluxioImage': '' does not match"},
		{"logLevel=verbose", "at '/logLevel': value must be one of 'debug', 'info', 'warn', 'error'"},
		{"imagePullPolicy=Sometimes", "at '/imagePullPolicy': value must be one of"},
		{"agent.quota=lots", "at '/agent/quota': 'lots' does not match"},
		{"agent.memory=0Mi", "at '/agent/memory': '0Mi' does not match"},
		{"keeper.image=", "at '/keeper/image': '' does not match"},
		{"maxUnavailable=0", "at '/maxUnavailable': minimum: got 0, want 1"},
		{"maxUnavailable=200%", "at '/maxUnavailable': '200%' does not match"},
		{"monitoring.grafana=true", "at '/monitoring': additional properties 'grafana' not allowed"},
		{"network.httpsProxy=proxy", "at '/network/httpsProxy': 'proxy' does not match"},
		{"network.caBundle=/etc/ca.pem", "at '/network/caBundle': '/etc/ca.pem' does not match"},
		{"networkPolicy=yes please", "at '/networkPolicy': got string, want boolean"},
	} {
		if out, err := helm(t, "template", "millrace", chart, "--set", tc.set); err == nil ||
			!strings.Contains(out, tc.says) {
			t.Errorf("--set %s: %v: got\n%s\nwant %q", tc.set, err, out, tc.says)
		}
	}
}

// TestNetworkIsASecret renders a proxy with a password: the password is in one Secret, which the controller and the
// agent are given, and other agents take over.
func TestNetworkIsASecret(t *testing.T) {
	without, err := helm(t, "template", "millrace", chart)
	must(t, err)
	out, err := helm(t, "template", "millrace", chart, "--set", "network.httpsProxy=http://me:hunter2@proxy:3128",
		"--set", "network.noProxy=.svc")
	must(t, err)
	if n := strings.Count(out, "hunter2"); n != 1 {
		t.Errorf("the password is there %d times", n)
	}
	for what, want := range map[string]int{
		"name: millrace-network\n": 1, "secretName: " +
			"millrace-network\n": 2, "--network-dir=/etc/millrace/network\n": 2, "millrace.io/network:": 1,
		`HTTPS_PROXY: "http://me:hunter2@proxy:3128"`: 1, `NO_PROXY: ".svc"`: 1,
	} {
		if n := strings.Count(out, what); n != want {
			t.Errorf("%q is there %d times, not %d", what, n, want)
		}
	}
	if strings.Contains(without, "name: millrace-network\n") || strings.Contains(without, "millrace.io/network:") {
		t.Error("there is a Secret of nothing")
	}
}

// TestSchemaKnowsAllValues compares the schema with the values, and both with the table in deploy/README.md.
func TestSchemaKnowsAllValues(t *testing.T) {
	values, schema := map[string]any{}, map[string]any{}
	must(t, sigsyaml.Unmarshal([]byte(text(t, "deploy/chart/values.yaml")), &values))
	must(t, json.Unmarshal([]byte(text(t, "deploy/chart/values.schema.json")), &schema))
	have, known := map[string]string{}, map[string]bool{}
	leaves(values, "", have)
	properties(schema, "", known)
	delete(known, "global") // Helm's own.
	table := valuesTable(t)
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !known[name] {
			t.Errorf("the schema does not know %s", name)
		}
		if table[name] != have[name] {
			t.Errorf("deploy/README.md has for %s the default %q, values.yaml %q", name, table[name], have[name])
		}
		delete(known, name)
		delete(table, name)
	}
	if len(known)+len(table) > 0 {
		t.Errorf("values.yaml does not have %v of the schema and %v of deploy/README.md", known, table)
	}
}

// leaves are the values by their paths, as JSON. What is called resources, a list or an empty map is one value.
func leaves(values map[string]any, path string, into map[string]string) {
	for name, v := range values {
		inner, ok := v.(map[string]any)
		if ok && len(inner) > 0 && name != "resources" {
			leaves(inner, path+name+".", into)
			continue
		}
		shown, _ := json.Marshal(v)
		if text, ok := v.(string); ok && text != "" {
			shown = []byte(text)
		}
		into[path+name] = string(shown)
	}
}

// properties are the paths that a schema has properties for.
func properties(schema map[string]any, path string, into map[string]bool) {
	inner, _ := schema["properties"].(map[string]any)
	for name, v := range inner {
		if p, _ := v.(map[string]any); p["properties"] != nil {
			properties(p, path+name+".", into)
			continue
		}
		into[path+name] = true
	}
}

// valuesTable is the table of values in deploy/README.md: | `name` | `default` | meaning |.
func valuesTable(t *testing.T) map[string]string {
	t.Helper()
	_, section, _ := strings.Cut(text(t, "deploy/README.md"), "## Values\n")
	section, _, _ = strings.Cut(section, "\n## ")
	table := map[string]string{}
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.HasPrefix(cells[1], " `") {
			table[strings.Trim(cells[1], " `")] = strings.Trim(cells[2], " `")
		}
	}
	return table
}

// TestPods looks at what all pods must have, whatever the values are.
func TestPods(t *testing.T) {
	seen, memory := 0, int64(0)
	for _, o := range render(t) {
		spec, ok, _ := unstructured.NestedMap(o.Object, "spec", "template", "spec")
		if !ok {
			continue
		}
		seen++
		labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
		selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
		if labels["app.kubernetes.io/part-of"] != "millrace" {
			t.Errorf("%s: runtimes' NetworkPolicies do not let its pods in: %v", o.GetName(), labels)
		}
		for name, value := range selector {
			if labels[name] != value {
				t.Errorf("%s selects by %s=%s, its pods have %v", o.GetName(), name, value, labels)
			}
		}
		if spec["priorityClassName"] == nil || spec["serviceAccountName"] != o.GetName() {
			t.Errorf("%s: priority %v, service account %v", o.GetName(), spec["priorityClassName"],
				spec["serviceAccountName"])
		}
		if token := spec["automountServiceAccountToken"]; token != (o.GetName() == "millrace-controller") {
			t.Errorf("%s has a token of the API server: %v", o.GetName(), token)
		}
		containers, _, _ := unstructured.NestedSlice(spec, "containers")
		for _, c := range containers {
			c := c.(map[string]any)
			security, _ := c["securityContext"].(map[string]any)
			if c["livenessProbe"] == nil || c["readinessProbe"] == nil || security["readOnlyRootFilesystem"] != true {
				t.Errorf("%s lacks a probe, or may write to its root: %v", o.GetName(), c)
			}
			if (security["privileged"] == true) != (o.GetName() == "millrace-node") {
				t.Errorf("%s: privileged is %v", o.GetName(), security["privileged"])
			}
			request, _, _ := unstructured.NestedString(c, "resources", "requests", "memory")
			size, err := resource.ParseQuantity(request)
			if err != nil {
				t.Errorf("%s requests the memory %q: %v", o.GetName(), request, err)
			}
			replicas, found, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas")
			if n, ok := replicas.(int64); found && ok {
				size.Mul(n)
			}
			memory += size.Value()
		}
	}
	if memory > 150e6 {
		t.Errorf("on a cluster of one node %d bytes of memory are asked for before there is a Dataset", memory)
	}
	if seen != 4 {
		t.Errorf("there are %d kinds of pods, want 4", seen)
	}
}

// TestKeeperStays: the pods of the keeper are the same whatever version the chart has and which image of millrace. They
// are those of a file, too: a change of their template replaces all keepers in the next upgrade.
func TestKeeperStays(t *testing.T) {
	keeper := func(o []*unstructured.Unstructured) string {
		for _, o := range o {
			if o.GetKind() == "DaemonSet" && o.GetName() == "millrace-keeper" {
				template, _, err := unstructured.NestedMap(o.Object, "spec", "template")
				must(t, err)
				text, err := sigsyaml.Marshal(template)
				must(t, err)
				return string(text)
			}
		}
		t.Fatal("there is no keeper")
		return ""
	}
	const golden = "testdata/keeper.yaml"
	want := text(t, "sanity/deploy/"+golden)
	for _, values := range []string{"logLevel=info", "image=example.org/m:2,logLevel=debug,agent.memory=96Mi"} {
		if got := keeper(render(t, strings.Split(values, ",")...)); got != want {
			t.Errorf("with %s the keeper's pods are\n%s\nwant those of %s", values, got, golden)
		}
	}
	later := t.TempDir()
	must(t, os.CopyFS(later, os.DirFS(chart)))
	about := text(t, "deploy/chart/Chart.yaml")
	changed := regexp.MustCompile(`(?m)^((?:appV|v)ersion): .*$`).ReplaceAllString(about, "${1}: 9.9.9")
	must(t, os.WriteFile(later+"/Chart.yaml", []byte(changed), 0o600))
	out, err := helm(t, "template", "millrace", later, "--show-only", "templates/keeper.yaml")
	must(t, err)
	var o unstructured.Unstructured
	must(t, sigsyaml.Unmarshal([]byte(out), &o.Object))
	if got := keeper([]*unstructured.Unstructured{&o}); got != want {
		t.Errorf("of the version 9.9.9 the keeper's pods are\n%s\nwant those of %s", got, golden)
	}
}
