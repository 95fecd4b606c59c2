package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// trouble has Datasets whose pods cannot run, each for another reason. Dataset and runtime say why within 10 s of
// Kubernetes.
func (r *rest) trouble(t *testing.T) {
	for _, tc := range []struct {
		name, spec string
		// known is what a pod's status has when Kubernetes knows, by the jsonpath at.
		role, at     string
		known        []string
		kind, reason string
		says         []string
	}{
		{
			"absent", "alluxioVersion: {image: 127.0.0.1:1/alluxio/none, imageTag: none}",
			"alluxio-master", `{.items[0].status.containerStatuses[?(@.name=="alluxio-master")].state.waiting.reason}`,
			[]string{"ErrImagePull", "ImagePullBackOff"},
			"MasterReady", "ImagePull",
			[]string{"the pod absent-master-0 on the node node", "127.0.0.1:1/alluxio/none:none", "connection refused"},
		},
		{
			"full", "worker: {resources: {requests: {memory: 1Ti}}}",
			"alluxio-worker", `{.items[0].status.conditions[?(@.type=="PodScheduled")].reason}`,
			[]string{"Unschedulable"},
			"WorkersReady", "Unschedulable",
			[]string{"the pod full-worker-0 cannot be scheduled", "Insufficient memory"},
		},
		{
			"crashes", "jvmOptions: ['-XX:+NoSuchOption']",
			"alluxio-master",
			`{.items[0].status.containerStatuses[?(@.name=="alluxio-master")].lastState.terminated.reason}`,
			[]string{"Error"},
			"MasterReady", "Crash",
			[]string{
				"the pod crashes-master-0 on the node node", "alluxio-master ended with exit code 1",
				"the last line of its log: Error: ",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			manifest := strings.ReplaceAll(fmt.Sprintf(sharedDataset, tc.name, 1), "/small/"+tc.name+"/", "/small/one/")
			r.apply(t, strings.Replace(manifest, "spec:\n  replicas: 1\n", "spec:\n  replicas: 1\n  "+tc.spec+"\n", 1))
			await(t, 3*time.Minute, "Kubernetes knows", func() error {
				out, err := r.cluster.Kubectl(t.Context(), "get", "pods", "-l", "release="+tc.name+",role="+tc.role,
					"-o", "jsonpath="+tc.at)
				for _, known := range tc.known {
					if err == nil && out == known {
						return nil
					}
				}
				if err != nil {
					return err
				}
				return fmt.Errorf("it says %q", out)
			})
			took := await(t, time.Minute, "Dataset and runtime say so",
				func() error { return r.tells(t, tc.name, tc.kind, tc.reason, tc.says) })
			pace.Within(t, "telling "+tc.reason, took, 10*time.Second)
			t.Logf("told %v after Kubernetes", took.Round(100*time.Millisecond))
			r.kubectl(t, "delete", "dataset,alluxioruntime", tc.name, "--timeout=180s")
		})
	}
}

// tells is nil when the conditions of a Dataset and its runtime have a reason and say all the words, and an Event on
// each has the reason.
func (r *rest) tells(t *testing.T, name, kind, reason string, says []string) error {
	t.Helper()
	for object, condition := range map[string]string{"dataset": "Ready", "alluxioruntime": kind} {
		line, err := r.cluster.Kubectl(t.Context(), "get", object, name, "-o",
			fmt.Sprintf(`jsonpath={range .status.conditions[?(@.type==%q)]}{.status} {.reason} {.message}{end}`,
				condition))
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, "False "+reason+" ") {
			return fmt.Errorf("the %s says %q", object, line)
		}
		for _, text := range says {
			if !strings.Contains(line, text) {
				return fmt.Errorf("the %s says %q, and not %q", object, line, text)
			}
		}
	}
	events, err := r.cluster.Kubectl(t.Context(), "get", "events", "--field-selector",
		"type=Warning,reason="+reason+",involvedObject.name="+name, "-o", "jsonpath={.items[*].involvedObject.kind}")
	if err == nil && (!strings.Contains(events, "Dataset") || !strings.Contains(events, "AlluxioRuntime")) {
		err = fmt.Errorf("there are Events only on %q", events)
	}
	return err
}
