package objects

import (
	"slices"
	"strings"
	"testing"
)

// TestSweeper is a pod beside the controller, on the node, that names each directory of the tiers by its parent.
func TestSweeper(t *testing.T) {
	in := parse(t, []byte(strings.Replace(bases[0], "path: /dev/shm", "path: '/dev/shm,/mnt/disk'", 1)))
	in.Dataset = nil
	pod := Sweeper(in, "node-a")
	if pod.Namespace != settings.Namespace || pod.Spec.NodeName != "node-a" || len(pod.OwnerReferences) > 0 ||
		pod.Name != SweeperName("default", "d", "node-a") {
		t.Errorf("the sweeper is %s/%s on %s, owned by %v", pod.Namespace, pod.Name, pod.Spec.NodeName,
			pod.OwnerReferences)
	}
	for key, want := range SweeperLabels("default", "d") {
		if pod.Labels[key] != want {
			t.Errorf("its label %s is %q, want %q", key, pod.Labels[key], want)
		}
	}
	if pod.Spec.Volumes[0].HostPath.Path != "/dev/shm" || pod.Spec.Volumes[1].HostPath.Path != "/mnt/disk" {
		t.Errorf("it has the volumes %+v", pod.Spec.Volumes)
	}
	if args := pod.Spec.Containers[0].Args; !slices.Equal(args,
		[]string{"sweep", "default/d", "/sweep/0-0", "/sweep/0-1"}) {
		t.Errorf("it runs %q", args)
	}
	for _, name := range []string{
		SweeperName("default", "d", "node-b"), SweeperName("default", "e", "node-a"),
		SweeperName("other", "d", "node-a"),
	} {
		if name == pod.Name {
			t.Errorf("%s is a name for two", name)
		}
	}
	in.Runtime.Spec.TieredStore.Levels[0].VolumeType = "emptyDir"
	if Sweeper(in, "node-a") != nil {
		t.Error("a tier that is the pod's own is swept")
	}
}
