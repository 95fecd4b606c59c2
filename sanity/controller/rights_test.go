package controller_test

import (
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
)

// TestRights runs a controller with the generated rights and no others, from election to deletion.
func TestRights(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	grant(t, c, "controller", "role.yaml")
	ns := namespace(t, c)
	start(t, s, ns, func(config *controller.Config) {
		api, err := s.Config("controller")
		must(t, err)
		config.API, config.Elect = api, true
	})
	specs := create(t, c, ns, walkthrough)
	complete(t, c, ns)
	eventually(t, "an event tells of the phase", func() string {
		events := &corev1.EventList{}
		must(t, c.List(t.Context(), events, client.InNamespace(ns)))
		for i := range events.Items {
			if events.Items[i].InvolvedObject.Kind == "Dataset" && events.Items[i].Reason == "NotBound" {
				return ""
			}
		}
		return "there is none"
	})
	for _, o := range specs {
		must(t, c.Delete(t.Context(), o))
	}
	gone(t, c, ns)
}

// grant gives a user the rights of a file in deploy/rbac, some of which are of a namespace.
func grant(t *testing.T, c client.Client, user, file string) {
	t.Helper()
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "millrace-system"}}
	if err := c.Create(t.Context(), system); !apierrors.IsAlreadyExists(err) {
		must(t, err)
	}
	for _, role := range documents(t, "../../deploy/rbac/"+file) {
		kind := role.GetKind()
		binding := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind + "Binding",
			"metadata": map[string]any{"name": user + "-" + role.GetName()},
			"roleRef": map[string]any{
				"apiGroup": "rbac.authorization.k8s.io", "kind": kind,
				"name": role.GetName(),
			},
			"subjects": []any{map[string]any{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}},
		}}
		binding.SetNamespace(role.GetNamespace())
		for _, o := range []*unstructured.Unstructured{role, binding} {
			must(t, c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test")))
		}
	}
}

// warnings are what the API server says beside its answers.
type warnings struct {
	// mu guards texts.
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

// TestEvenMastersWarn accepts an even number of masters, with a warning.
func TestEvenMastersWarn(t *testing.T) {
	s, c := server(t)
	for _, o := range documents(t, "../../deploy/admission/masters.yaml") {
		must(t, c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test")))
	}
	config, err := s.Admin()
	must(t, err)
	w := &warnings{}
	config = rest.CopyConfig(config)
	config.WarningHandler = w
	warned, err := client.New(config, client.Options{Scheme: c.Scheme()})
	must(t, err)
	ns := namespace(t, c)
	eventually(t, "the warning", func() string {
		even := documents(t, walkthrough)[1]
		even.SetNamespace(ns)
		even.SetName("")
		even.SetGenerateName("even-")
		must(t, unstructured.SetNestedField(even.Object, int64(2), "spec", "master", "replicas"))
		must(t, warned.Create(t.Context(), even))
		w.mu.Lock()
		defer w.mu.Unlock()
		if text := strings.Join(w.texts, " "); !strings.Contains(text, "spec.master.replicas is 2") {
			return "the warnings are " + text
		}
		return ""
	})
}
