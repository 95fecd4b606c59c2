package controller_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/sanity/cluster"
)

// tiered is a runtime with three tiers that are small.
const tiered = `
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: tiered, namespace: default}
spec: {mounts: [{mountPoint: "s3://bucket/", name: data}]}
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: tiered, namespace: default}
spec:
  replicas: 1
  tieredstore:
    levels:
    - {mediumtype: MEM, path: /dev/shm, quota: 16Mi}
    - {mediumtype: SSD, path: /mnt/ssd, quota: 16Mi}
    - {mediumtype: HDD, path: /mnt/hdd, quota: 16Mi}
`

// tieredPlan is what becomes of it, with more properties of its own.
func tieredPlan(t *testing.T, properties map[string]string) *objects.Plan {
	t.Helper()
	var in objects.Input
	for _, o := range parse(t, tiered) {
		switch o.GetKind() {
		case "Dataset":
			in.Dataset = &v1alpha1.Dataset{}
			must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, in.Dataset))
		case "AlluxioRuntime":
			in.Runtime = &v1alpha1.AlluxioRuntime{}
			must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, in.Runtime))
		}
	}
	in.Runtime.Spec.Properties = properties
	in.Settings = objects.Settings{AlluxioImage: "a", MillraceImage: "m", Driver: "d", Namespace: "n"}
	plan, problems := objects.Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return plan
}

// storeOf are the properties of a plan's workers that say how their tiers are kept, with directories that are here.
func storeOf(t *testing.T, plan *objects.Plan) map[string]string {
	t.Helper()
	store := map[string]string{}
	for _, o := range plan.Objects {
		config, ok := o.(*corev1.ConfigMap)
		if !ok {
			continue
		}
		for line := range strings.Lines(config.Data["worker.properties"]) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if strings.HasSuffix(name, ".dirs.path") {
				value = t.TempDir()
			}
			if strings.HasPrefix(name, "alluxio.worker.tieredstore.") ||
				strings.HasPrefix(name, "alluxio.worker.management.") {
				store[name] = value
			}
		}
	}
	return store
}

// TestTiersOfARealAlluxio has a real worker with the three tiers of a runtime say that nothing is used before a read,
// take as much as all three hold, and count what it holds; also where the runtime has it reserve room.
func TestTiersOfARealAlluxio(t *testing.T) {
	t.Parallel()
	for name, properties := range map[string]map[string]string{
		"as they are": nil,
		"with a reserve": {
			"alluxio.worker.management.tier.align.enabled":        "true",
			"alluxio.worker.management.tier.align.reserved.bytes": "4MB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan := tieredPlan(t, properties)
			servers := cluster.ForTest(t, cluster.Config{
				Masters: 1, Workers: 1, TierQuota: 16 << 20, WorkerProperties: storeOf(t, plan),
			})
			room := 48<<20 - plan.Reserved
			fill(t, servers, plan.Reserved, room)
		})
	}
}

// fill loads as many files of 1 MiB as there is room for, and compares what the controller counts.
func fill(t *testing.T, servers *cluster.Cluster, reserved, room int64) {
	t.Helper()
	source := t.TempDir()
	files := int(room >> 20)
	for i := range files {
		must(t, os.WriteFile(filepath.Join(source, strconv.Itoa(i)), make([]byte, 1<<20), 0o600))
	}
	clusters := &masters.Clusters{Notify: func(types.NamespacedName) {}, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- clusters.Start(ctx) }()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	key := types.NamespacedName{Namespace: "default", Name: "tiered"}
	want := masters.Want{
		Masters: []string{servers.Masters()[0].Address()}, User: "root", Reserved: reserved,
		Mounts: []rpc.Mount{{Path: "/data", Source: source, ReadOnly: true}},
	}
	clusters.Want(key, want)
	used := func(what string, want int64) {
		t.Helper()
		eventually(t, what, func() string {
			clusters.Soon(key)
			if s := clusters.State(key); !s.Mounted || s.Capacity != 48<<20 || s.Used != want {
				return fmt.Sprintf("%d of %d bytes, %s%s", s.Used, s.Capacity, s.Err, s.MountErr)
			}
			return ""
		})
	}
	used("nothing is used", 0)
	var last masters.Progress
	progress := func(p masters.Progress) { last = p }
	must(t, clusters.Load(t.Context(), key, []masters.Target{{Path: "/data"}}, false, progress))
	if last.Files != int64(files) || last.Failed > 0 {
		t.Fatalf("loaded are %+v", last)
	}
	used("all that was loaded is counted", room)
	want.Empty = true
	clusters.Want(key, want)
	eventually(t, "the cache is known to be empty", func() string {
		clusters.Soon(key)
		if s := clusters.State(key); !s.Emptied {
			return fmt.Sprintf("%d bytes are used, %s", s.Used, s.EmptyErr)
		}
		return ""
	})
}
