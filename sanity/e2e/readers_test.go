package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// second is a line of a reader's (sanity/e2e/reader).
type second struct {
	At      time.Time `json:"at"`
	Reads   int       `json:"reads"`
	Errors  int       `json:"errors"`
	Longest float64   `json:"longest"`
	Error   string    `json:"error"`
}

// readerPod reads the claim's directory on a node all the time.
const readerPod = `apiVersion: v1
kind: Pod
metadata: {name: reader-%[1]s%[4]s, labels: {app: reader}}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 0
  containers:
    - name: reader
      image: ` + readerImage + `
      args: [%[3]s]
      volumeMounts: [{name: data, mountPath: /data, mountPropagation: HostToContainer}]
  volumes:
    - {name: data, persistentVolumeClaim: {claimName: %[2]s}}
`

// startReader starts a reader on a node, and returns when it has read.
func (r *rig) startReader(t *testing.T, node, claim, dir, suffix string) (pod string) {
	t.Helper()
	pod = "reader-" + node + suffix
	r.apply(t, fmt.Sprintf(readerPod, node, claim, dir, suffix))
	t.Cleanup(func() {
		_, _ = r.cluster.Kubectl(r.ctx, "delete", "pod", pod, "--force", "--ignore-not-found", "--timeout=60s")
	})
	await(t, time.Minute, pod+" reads", func() error {
		seen, err := r.seen(t, pod, time.Time{})
		if err == nil && seen.reads == 0 {
			err = errors.New("no read")
		}
		return err
	})
	return pod
}

// view is what a reader has seen in a while.
type view struct {
	reads, errors int
	longest       time.Duration // the longest read
	last          string        // the last error
}

// seen is what a reader has seen since then.
func (r *rig) seen(t *testing.T, pod string, since time.Time) (view, error) {
	t.Helper()
	var v view
	logs, err := r.cluster.Kubectl(t.Context(), "logs", pod)
	if err != nil {
		return v, err
	}
	for _, line := range lines(logs) {
		var s second
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return v, fmt.Errorf("%s says %q: %w", pod, line, err)
		}
		if s.At.Before(since) {
			continue
		}
		v.reads += s.Reads
		v.errors += s.Errors
		v.longest = max(v.longest, time.Duration(s.Longest*float64(time.Second)))
		if s.Error != "" {
			v.last = strings.TrimSpace(s.Error)
		}
	}
	return v, nil
}

// longestRead is what a read may take while something fails: the client waits for 10 seconds for what vanishes.
const longestRead = 15 * time.Second

// unharmed checks that readers have gone on since then without an error, and without one that hung.
func (r *rig) unharmed(t *testing.T, since time.Time, pods ...string) {
	t.Helper()
	// A reader in a long read says so when that has ended.
	for _, pod := range pods {
		await(t, time.Minute, pod+" reads on", func() error {
			v, err := r.seen(t, pod, time.Now().Add(-1500*time.Millisecond))
			if err == nil && v.reads == 0 {
				err = errors.New("nothing")
			}
			return err
		})
		v, err := r.seen(t, pod, since)
		if err != nil {
			t.Error(err)
			continue
		}
		t.Logf("%s: %d reads, %d errors, the longest took %v", pod, v.reads, v.errors, v.longest.Round(time.Millisecond))
		if v.errors > 0 {
			t.Errorf("%s has seen %d errors, the last %s", pod, v.errors, v.last)
		}
		if v.longest > longestRead {
			t.Errorf("a read of %s took %v", pod, v.longest)
		}
	}
}
