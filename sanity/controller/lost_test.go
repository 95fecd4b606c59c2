package controller_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/lost"
	"millrace.io/millrace/controller/objects"
)

// TestLostPodsAreTold: a pod that an agent names gets one Event, and the Dataset of its claim a condition, for as long
// as it is named. One that has been replaced by another of its name gets none. The controller has no rights but those
// that are generated.
func TestLostPodsAreTold(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	grant(t, c, "controller", "role.yaml")
	ns := namespace(t, c)
	var said atomic.Pointer[[]lost.Pod]
	said.Store(&[]lost.Pod{})
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/lost" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(said.Load())
	}))
	defer agent.Close()
	start(t, s, ns, func(config *controller.Config) {
		api, err := s.Config("controller")
		must(t, err)
		config.API, config.Agents = api, "localhost:"+agent.URL[strings.LastIndex(agent.URL, ":")+1:]
	})
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	pods := map[string]*corev1.Pod{}
	for _, name := range []string{"reader", "other"} {
		pods[name] = &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox"}}},
		}
		must(t, c.Create(t.Context(), pods[name]))
	}
	volume := objects.VolumeName(ns, "hbase", false)
	said.Store(&[]lost.Pod{
		{Volume: volume, Namespace: ns, Name: "reader", UID: string(pods["reader"].UID)},
		{Volume: volume, Namespace: ns, Name: "other", UID: "of-the-one-before"},
	})
	told := func(want string) {
		t.Helper()
		eventually(t, "the Dataset says "+want, func() string {
			line := condition(dataset(t, c, ns, "hbase").Status.Conditions, v1alpha1.RestartNeeded)
			if strings.HasPrefix(line, want) {
				return ""
			}
			return "it says " + line
		})
	}
	told("RestartNeeded=True MountLost")
	line := condition(dataset(t, c, ns, "hbase").Status.Conditions, v1alpha1.RestartNeeded)
	if !strings.HasSuffix(line, "delete them: reader") {
		t.Errorf("the condition is %q", line)
	}
	said.Store(&[]lost.Pod{})
	told("RestartNeeded is not there")
	events := &corev1.EventList{}
	must(t, c.List(t.Context(), events, client.InNamespace(ns)))
	count := 0
	for i := range events.Items {
		e := &events.Items[i]
		if e.Reason != lost.Reason {
			continue
		}
		count++
		of := e.InvolvedObject
		if of.Kind != "Pod" || of.UID != pods["reader"].UID || e.Type != corev1.EventTypeWarning ||
			!strings.Contains(e.Message, "kubectl -n "+ns+" delete pod reader") {
			t.Errorf("the Event is %s of the %s %s: %s", e.Type, of.Kind, of.Name, e.Message)
		}
	}
	if count != 1 {
		t.Errorf("there are %d Events, want 1", count)
	}
}
