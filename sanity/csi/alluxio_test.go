package csi_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/rootstat"
)

// TestAlluxioVolume stages a volume whose source is a real cluster, and takes away one after the other what serves it.
func TestAlluxioVolume(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"source/file", "source/sub/other"} {
		n.must("giving a file a time", os.Chtimes(n.at(name), old, old))
	}
	c := cluster.ForTest(t, cluster.Config{Masters: 1, Workers: 1, UFS: n.at("source"), BlockSize: 1 << 20})
	n.url = c.Address()
	n.startAgent()
	n.startPlugin()
	n.waitReady()
	n.must("stage", n.stage(t.Context(), "a"))
	for _, pod := range []string{"pod-1", "pod-2"} {
		n.must("publish", n.publish(t.Context(), "a", pod))
		n.must("read", n.read(n.target("a", pod)))
	}

	watcher := rootstat.Watch(t, n.staging("a"), n.target("a", "pod-1"), n.target("a", "pod-2"))
	n.serving.Kill()
	n.startAgent()
	n.must("read after the agent was killed", n.read(n.target("a", "pod-1")))

	worker, master := c.Workers()[0], c.Masters()[0]
	n.must("kill the worker", worker.Kill())
	n.must("read without a worker", n.read(n.target("a", "pod-2")))
	n.must("kill the master", master.Kill())
	n.must("read without anybody of Alluxio", n.read(n.target("a", "pod-1")))
	n.must("start the servers again", c.Restore(t.Context()))
	n.must("read from the servers again", n.read(n.target("a", "pod-2")))
	watcher.End()

	for _, pod := range []string{"pod-1", "pod-2"} {
		n.must("unpublish", n.unpublish(t.Context(), "a", pod))
	}
	n.must("unstage", n.unstage(t.Context(), "a"))
}

// TestEmptyAlluxioVolume stages a volume of a cluster in which nothing is mounted yet: that fails, until something is.
func TestEmptyAlluxioVolume(t *testing.T) {
	n := newNode(t)
	c := cluster.ForTest(t, cluster.Config{Masters: 1, Workers: 1})
	n.url = c.Address()
	n.startAgent()
	n.startPlugin()
	n.waitReady()
	if err := n.stage(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("an empty cluster is staged: %v", err)
	}
	if out, err := c.Shell(t.Context(), "mkdir", "/there"); err != nil {
		t.Fatal(out, err)
	}
	n.must("stage", n.stage(t.Context(), "a"))
	n.must("unstage", n.unstage(t.Context(), "a"))
}
