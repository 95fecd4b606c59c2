package controller_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/driver"
	"millrace.io/millrace/sanity/kube"
)

const walkthrough = "../../controller/objects/testdata/walkthrough.yaml"

// start runs a controller for a namespace until stop is called, or the test ends. change may change how it runs.
func start(t *testing.T, s *kube.Server, ns string, change func(*controller.Config)) (stop func() error) {
	t.Helper()
	api, err := s.Admin()
	must(t, err)
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	config := controller.Config{
		API: api, Watch: ns, Fast: 100 * time.Millisecond, Slow: 500 * time.Millisecond,
		Settings: objects.Settings{
			AlluxioImage: "alluxio/alluxio:2.9.5", MillraceImage: "example.org/millrace:v1",
			Driver: "csi.millrace.io", Namespace: "millrace-system",
		},
		CheckClass: driver.CheckClass,
		Log:        slog.New(slog.NewTextHandler(testOutput{t}, &slog.HandlerOptions{Level: level})),
	}
	if change != nil {
		change(&config)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- controller.Run(ctx, config) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("the controller does not end")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

// testOutput writes the controller's log beside the test's.
type testOutput struct{ t *testing.T }

func (o testOutput) Write(p []byte) (int, error) {
	_, _ = os.Stderr.WriteString(o.t.Name() + ": " + string(p))
	return len(p), nil
}

// versions are the resource versions of all objects that were made for a Dataset, by kind and name.
func versions(t *testing.T, c client.Client, ns string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for kind, list := range map[string]client.ObjectList{
		"StatefulSet": &appsv1.StatefulSetList{}, "Service": &corev1.ServiceList{},
		"ConfigMap": &corev1.ConfigMapList{}, "Secret": &corev1.SecretList{},
		"NetworkPolicy": &networkingv1.NetworkPolicyList{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudgetList{},
		"PersistentVolumeClaim": &corev1.PersistentVolumeClaimList{},
		"PersistentVolume":      &corev1.PersistentVolumeList{},
	} {
		options := []client.ListOption{client.MatchingLabels{objects.NamespaceLabel: ns}}
		must(t, c.List(t.Context(), list, options...))
		must(t, meta.EachListItem(list, func(o runtime.Object) error {
			a, err := meta.Accessor(o)
			found[kind+" "+a.GetName()] = a.GetResourceVersion()
			return err
		}))
	}
	return found
}

// made are the objects that the walkthrough's Dataset becomes.
func made(ns string) []string {
	return []string{
		"ConfigMap hbase-config", "NetworkPolicy hbase-master", "NetworkPolicy hbase-worker", "PersistentVolume " +
			"" + objects.VolumeName(ns, "hbase", false),
		"PersistentVolumeClaim hbase", "PodDisruptionBudget hbase-master", "PodDisruptionBudget hbase-worker",
		"Secret hbase-gateway", "Secret hbase-node",
		"Service hbase-master", "Service hbase-master-0", "Service hbase-master-1", "Service hbase-master-2",
		"Service hbase-worker",
		"StatefulSet hbase-master", "StatefulSet hbase-worker",
	}
}

// complete waits until all objects of the walkthrough are there and the claim is bound.
func complete(t *testing.T, c client.Client, ns string) {
	t.Helper()
	eventually(t, "all objects are there", func() string {
		have := versions(t, c, ns)
		var missing []string
		for _, name := range made(ns) {
			if have[name] == "" {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return "missing: " + strings.Join(missing, ", ")
		}
		claim := &corev1.PersistentVolumeClaim{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase"}, claim))
		if claim.Status.Phase != corev1.ClaimBound {
			return "the claim is " + string(claim.Status.Phase)
		}
		return ""
	})
}

func dataset(t *testing.T, c client.Client, ns, name string) *v1alpha1.Dataset {
	t.Helper()
	d := &v1alpha1.Dataset{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, d); !apierrors.IsNotFound(err) {
		must(t, err)
	}
	return d
}

func alluxio(t *testing.T, c client.Client, ns, name string) *v1alpha1.AlluxioRuntime {
	t.Helper()
	r := &v1alpha1.AlluxioRuntime{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, r); !apierrors.IsNotFound(err) {
		must(t, err)
	}
	return r
}

// condition is a condition as one line.
func condition(list []v1alpha1.Condition, kind string) string {
	for _, c := range list {
		if c.Type == kind {
			return fmt.Sprintf("%s=%s %s %s", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return kind + " is not there"
}

// gone waits until nothing of the namespace's Dataset is left.
func gone(t *testing.T, c client.Client, ns string) {
	t.Helper()
	eventually(t, "nothing is left", func() string {
		left := versions(t, c, ns)
		if d := dataset(t, c, ns, "hbase"); d.Name != "" {
			return "the Dataset: " + condition(d.Status.Conditions, v1alpha1.Deleting)
		}
		if r := alluxio(t, c, ns, "hbase"); r.Name != "" {
			return "the runtime: " + condition(r.Status.Conditions, v1alpha1.Deleting)
		}
		pods := &corev1.PodList{}
		must(t, c.List(t.Context(), pods, client.InNamespace(ns)))
		if len(left)+len(pods.Items) > 0 {
			return fmt.Sprintf("left: %v and %d pods", left, len(pods.Items))
		}
		return ""
	})
}

func quantity(text string) resource.Quantity { return resource.MustParse(text) }
