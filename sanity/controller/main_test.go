// Package controller_test runs the controller against a real API server: what it makes, what it says, what it takes
// down.
package controller_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/sanity/kube"
)

// shared has the controllers of Kubernetes by which objects end, and StatefulSets get pods.
var shared = kube.Shared{Options: kube.Options{Controllers: kube.Usual}}

func TestMain(m *testing.M) {
	controller.SetLog(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	sideBySide()
	os.Exit(inDirectory(m))
}

// sideBySide has more tests run at a time than there are processors, where no flag says otherwise: most of them wait
// for the API server.
func sideBySide() {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8") // It is a number.
	}
}

// work is a directory for all tests, which goes with them.
var work string

func inDirectory(m *testing.M) int {
	var err error
	if work, err = os.MkdirTemp("", "millrace-controller-*"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(work) }()
	return shared.Run(m)
}

// server is the shared server with our API, and a client that may do everything.
func server(t *testing.T) (*kube.Server, client.Client) {
	t.Helper()
	needKube(t)
	s := shared.Get(t)
	c := withCRDs(t, s)
	installAPI(t, c)
	return s, c
}

// needKube skips the test where there is no control plane.
func needKube(t *testing.T) {
	t.Helper()
	kube.Need(t)
}

// long reports whether tests may take minutes, which make controller asks for.
func long() bool { return os.Getenv("MILLRACE_KUBE") != "" }

// withCRDs is a client that may do everything, and knows CRDs too.
func withCRDs(t *testing.T, s *kube.Server) client.Client {
	t.Helper()
	config, err := s.Admin()
	must(t, err)
	scheme, err := controller.Scheme()
	must(t, err)
	must(t, apiextensionsv1.AddToScheme(scheme))
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	must(t, err)
	return c
}

// installAPI applies the CRDs, and waits until they are served.
func installAPI(t *testing.T, c client.Client) {
	t.Helper()
	entries, err := os.ReadDir("../../deploy/crd")
	must(t, err)
	for _, e := range entries {
		for _, o := range documents(t, "../../deploy/crd/"+e.Name()) {
			must(t, c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"),
				client.ForceOwnership))
			eventually(t, "the CRD "+o.GetName()+" is served", func() string {
				crd := &apiextensionsv1.CustomResourceDefinition{}
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), crd); err != nil {
					return err.Error()
				}
				for _, cond := range crd.Status.Conditions {
					if cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue {
						return ""
					}
				}
				return "it is not established"
			})
		}
	}
}

// documents are the objects of a YAML file.
func documents(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	raw, err := os.ReadFile(file)
	must(t, err)
	return parse(t, string(raw))
}

func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); err != nil {
			return out
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

// namespace makes a namespace of the test's own. It is not removed: there is a new server for each run.
func namespace(t *testing.T, c client.Client) string {
	t.Helper()
	ns := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"generateName": "test-"},
	}}
	must(t, c.Create(t.Context(), ns))
	return ns.GetName()
}

// patience bounds what is waited for. It is far longer than anything takes, for only a test that fails waits so long.
const patience = 3 * time.Minute

// eventually asks until the answer is "", and fails with the last answer when it takes too long.
func eventually(t *testing.T, what string, ask func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		last := ask()
		if last == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s; %s", what, last)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// strictly has the API server refuse fields that it does not know.
var strictly = &client.CreateOptions{Raw: &metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}}
