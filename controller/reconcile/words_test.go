package reconcile

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestAPodIsToldOnce has pods come, stay and go.
func TestAPodIsToldOnce(t *testing.T) {
	now := time.Now()
	pod := func(uid types.UID, age time.Duration) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, CreationTimestamp: metav1.NewTime(now.Add(-age))}}
	}
	var w words
	one, other := types.NamespacedName{Name: "one"}, types.NamespacedName{Name: "other"}
	for i, tc := range []struct {
		key   types.NamespacedName
		users []corev1.Pod
		want  int
	}{
		{one, []corev1.Pod{pod("a", 0), pod("old", time.Hour)}, 1},
		{one, []corev1.Pod{pod("a", 0), pod("b", time.Minute)}, 1},
		{other, []corev1.Pod{pod("a", 0)}, 1},
		{one, []corev1.Pod{pod("a", 0), pod("b", 0)}, 0},
		{one, nil, 0},
		{other, nil, 0},
	} {
		if got := w.news(tc.key, tc.users, now); len(got) != tc.want {
			t.Errorf("look %d tells %d pods, want %d", i, len(got), tc.want)
		}
	}
	if len(w.byKey) != 0 {
		t.Errorf("it remembers %v", w.byKey)
	}
}

// TestSlimPodKeepsWhatFluidIsAskedFor looks at a user's pod as the cache has it.
func TestSlimPodKeepsWhatFluidIsAskedFor(t *testing.T) {
	kept, err := slimPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Labels:      map[string]string{"app": "x", "serverless.fluid.io/inject": "true"},
		Annotations: map[string]string{"long": "text"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	pod, _ := kept.(*corev1.Pod)
	if _, ok := pod.Labels["serverless.fluid.io/inject"]; !ok || len(pod.Labels) != 1 || len(pod.Annotations) != 0 {
		t.Errorf("it has the labels %v and the annotations %v", pod.Labels, pod.Annotations)
	}
}
