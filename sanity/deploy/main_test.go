// Package deploy_test tests what is in deploy/: the chart and what is rendered from it, on a real API server where one
// is needed; and the documents, which must know what the code says.
package deploy_test

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"millrace.io/millrace/sanity/kube"
)

// shared has the controllers that make pods of what is installed.
var shared = kube.Shared{Options: kube.Options{Controllers: []string{
	"deployment-controller", "replicaset-controller", "daemonset-controller", "resourcequota-controller",
	"namespace-controller", "garbage-collector-controller",
}}}

func TestMain(m *testing.M) {
	code := shared.Run(m)
	if toRemove != "" {
		_ = os.RemoveAll(toRemove)
	}
	os.Exit(code)
}

const (
	root  = "../.."
	chart = root + "/deploy/chart"
	base  = root + "/deploy/kustomize/base"
)

// helmPath is the pinned Helm, built where it is not yet.
var helmPath = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "tool", "-modfile="+root+"/.tools/helm/go.mod", "-n", "helm").Output()
	return strings.TrimSpace(string(out)), err
})

// needHelm skips a test of the quick ring: Helm takes minutes to build.
func needHelm(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs Helm, which is built once: make test")
	}
}

// helm runs the pinned Helm, and returns both outputs.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	needHelm(t)
	program, err := helmPath()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(),
		"HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// render is the chart with values, each as --set takes it.
func render(t *testing.T, values ...string) []*unstructured.Unstructured {
	t.Helper()
	args := []string{"template", "millrace", chart, "--namespace", "millrace-system"}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	out, err := helm(t, args...)
	if err != nil {
		t.Fatalf("helm %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return parse(t, out)
}

// parse reads the objects of a text of YAML.
func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); err != nil {
			if err.Error() != "EOF" {
				t.Fatal(err)
			}
			return all
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
}

// text is a file below the repository's root.
func text(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(root + "/" + name)
	must(t, err)
	return string(raw)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
