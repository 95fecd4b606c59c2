package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// agent is a DaemonSet of two pods with its present revision and a pod of it, whose status and events are given.
func agent(t *testing.T, status, events string) *state {
	t.Helper()
	text := fmt.Sprintf(`{"items": [
		{"kind": "DaemonSet", "metadata": {"name": "agent", "uid": "d", "generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 1}},
		{"kind": "ControllerRevision", "metadata": {"name": "r", "uid": "r", "labels": {"controller-revision-hash": "now"}, "ownerReferences": [{"uid": "d", "controller": true}]}, "revision": 2},
		{"kind": "ControllerRevision", "metadata": {"name": "o", "uid": "o", "labels": {"controller-revision-hash": "old"}, "ownerReferences": [{"uid": "d", "controller": true}]}, "revision": 1},
		{"kind": "Pod", "metadata": {"name": "earlier", "uid": "e", "labels": {"controller-revision-hash": "old"}, "ownerReferences": [{"uid": "d", "controller": true}]},
		 "spec": {"nodeName": "n2"}, "status": {"containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "InvalidImageName"}}}]}},
		{"kind": "Pod", "metadata": {"name": "pod", "uid": "p", "labels": {"controller-revision-hash": "now"}, "ownerReferences": [{"uid": "d", "controller": true}]},
		 "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i:1"}]}, "status": %s}%s]}`, status, events)
	if !json.Valid([]byte(text)) {
		t.Fatalf("not JSON: %s", text)
	}
	s, err := parseState(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func waits(reason, message string) string {
	return fmt.Sprintf(`{"containerStatuses": [{"name": "a", "restartCount": 2, "state": {"waiting": {"reason": %q, "message": %q}}}]}`, reason, message)
}

func event(id, reason, message string, count int) string {
	return fmt.Sprintf(`, {"kind": "Event", "metadata": {"uid": "e-%[1]s"}, "involvedObject": {"uid": %[1]q}, "reason": %[2]q, "message": %[3]q, "count": %[4]d}`, id, reason, message, count)
}

// TestVerdict tells what mends itself from what does not, at once and after a minute.
func TestVerdict(t *testing.T) {
	const pull = "Failed to pull image \"i:1\": failed to resolve: dial tcp: timeout"
	unschedulable := `{"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}`
	for name, tc := range map[string]struct {
		status, events string
		atOnce, later  string // a part of the reason, "" without a verdict
	}{
		"starts": {waits("ContainerCreating", ""), "", "", ""},
		"not found": {
			waits("ErrImagePull", "i:1: not found"), "", `"i:1" cannot be pulled`,
			`"i:1" cannot be pulled`,
		},
		"one timeout": {waits("ImagePullBackOff", "back-off"), event("p", "Failed", pull, 2), "", ""},
		"three timeouts": {
			waits("ImagePullBackOff", "back-off"), event("p", "Failed", pull, 3),
			"failed to resolve: dial tcp", "failed to resolve: dial tcp",
		},
		"bad name":      {waits("InvalidImageName", ""), "", "not the name of an image", "not the name of an image"},
		"crashes":       {waits("CrashLoopBackOff", ""), "", "ended 2 times", "ended 2 times"},
		"config":        {waits("CreateContainerConfigError", "no Secret"), "", "", "no Secret"},
		"unschedulable": {unschedulable, "", "", "no node takes the pod pod: 0/2 nodes"},
		"scaled up":     {unschedulable, event("p", "TriggeredScaleUp", "", 1), "", ""},
		"quota": {
			"{}", event("d", "FailedCreate", "exceeded quota: few", 1), "exceeded quota: few",
			"exceeded quota: few",
		},
		"Pod Security": {
			"{}", event("d", "FailedCreate", "violates PodSecurity", 1), "violates PodSecurity",
			"violates PodSecurity",
		},
		"no account yet": {
			"{}", event("d", "FailedCreate", "error looking up service account", 1), "",
			"service account",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := agent(t, tc.status, tc.events)
			j, now := newJudge(nil), time.Now()
			j.now = func() time.Time { return now }
			for _, want := range []string{tc.atOnce, tc.later} {
				why := ""
				if st := j.verdict(s, part{daemonSet, "agent"}); st != nil {
					why = st.why
				}
				if want == "" && why != "" || !strings.Contains(why, want) {
					t.Errorf("the verdict is %q, want %q", why, want)
				}
				now = now.Add(time.Minute)
			}
			// Events of before the installation say nothing of it.
			if st := newJudge(s).noPods(s, part{daemonSet, "agent"}); st != nil {
				t.Errorf("an old Event makes the verdict %q", st.why)
			}
		})
	}
}
