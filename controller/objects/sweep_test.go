package objects

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSweeperRemoves runs a sweeper's commands on directories as workers leave them, beside another Dataset's.
func TestSweeperRemoves(t *testing.T) {
	in := parse(t, []byte(strings.Replace(bases[0], "path: /dev/shm", "path: '/dev/shm,/mnt/disk'", 1)))
	in.Dataset = nil
	pod := Sweeper(in, "node-a")
	root := t.TempDir()
	dirs := map[string]string{}
	for _, m := range pod.Spec.InitContainers[0].VolumeMounts {
		dirs[m.MountPath] = filepath.Join(root, strings.ReplaceAll(m.MountPath, "/", "_"))
	}
	if len(dirs) != 2 || pod.Spec.Volumes[0].HostPath.Path != "/dev/shm" || pod.Spec.Volumes[1].HostPath.Path != "/mnt/disk" || pod.Spec.NodeName != "node-a" {
		t.Fatalf("the sweeper is %+v", pod.Spec)
	}
	var first string
	for _, dir := range dirs {
		first = dir
		must(t, os.MkdirAll(filepath.Join(dir, "default/d/alluxioworker/1"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "default/d/alluxioworker/1/block"), []byte("x"), 0o600))
		must(t, os.MkdirAll(filepath.Join(dir, "another/d"), 0o700))
	}
	must(t, os.MkdirAll(filepath.Join(first, "default/other"), 0o700))
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		args := make([]string, len(c.Command))
		for i, a := range c.Command {
			args[i] = a
			for at, dir := range dirs {
				if rest, ok := strings.CutPrefix(a, at+"/"); ok {
					args[i] = filepath.Join(dir, rest)
				}
			}
		}
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	for _, dir := range dirs {
		_, own := os.Stat(filepath.Join(dir, "default/d"))
		_, namespace := os.Stat(filepath.Join(dir, "default"))
		_, others := os.Stat(filepath.Join(dir, "another/d"))
		if own == nil || others != nil || (namespace == nil) != (dir == first) {
			t.Errorf("%s: own %v, its namespace %v, another's %v", dir, own, namespace, others)
		}
	}
	in.Runtime.Spec.TieredStore.Levels[0].VolumeType = "emptyDir"
	if Sweeper(in, "node-a") != nil {
		t.Error("a tier that is the pod's own is swept")
	}
}
