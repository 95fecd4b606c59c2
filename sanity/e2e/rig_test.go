package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/images"
	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/machines"
	"millrace.io/millrace/sanity/testbed"
)

// rig is the cluster that all tests share, millrace installed in it.
type rig struct {
	ctx context.Context // ends when the run is interrupted

	once sync.Once
	err  error // why there is none

	bed     *testbed.Bed
	cluster *kubenodes.Cluster // the bed's
	mirror  *machines.Machine  // the web server's machine
}

var shared rig

const (
	namespace     = testbed.Namespace
	readerImage   = "millrace.test/reader:1"
	mirrorAddress = "10.200.0.2"
	mirrorName    = "mirror.example.org"
	wire          = 100e6 / 8 // of the web server, in bytes a second
)

// get is the cluster, for a test that has asked for it.
func get(t *testing.T) *rig {
	t.Helper()
	if os.Getenv("MILLRACE_E2E") == "" {
		t.Skip("starts a Kubernetes cluster of two nodes: make e2e")
	}
	if err := kubenodes.Check(); err != nil {
		t.Skip(err)
	}
	shared.once.Do(func() { shared.err = shared.start(t) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if err := shared.ctx.Err(); err != nil {
		t.Fatal(err)
	}
	return &shared
}

// short reports whether it is the short form: the walkthrough, and the first half of the failures.
func short() bool { return os.Getenv("MILLRACE_E2E") == "short" }

// hold keeps the cluster of a test that failed as it is until the run is interrupted, where MILLRACE_E2E_HOLD asks for
// it.
func (r *rig) hold(t *testing.T) {
	t.Helper()
	if t.Failed() && os.Getenv("MILLRACE_E2E_HOLD") != "" && r.ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%s failed, and its cluster is kept until Ctrl-C: %s\n", t.Name(),
			r.cluster.KubectlLine("get pods -A"))
		<-r.ctx.Done()
	}
}

func (r *rig) start(t *testing.T) error {
	t.Helper()
	var err error
	r.bed, err = testbed.Start(r.ctx, kubenodes.Options{
		Nodes: 2, Shm: 6 << 30, Log: t.Logf, Names: map[string]string{mirrorName: mirrorAddress},
	}, func(ctx context.Context, dir string) (string, error) {
		return images.Program(ctx, dir, readerImage, "millrace.io/millrace/sanity/e2e/reader")
	})
	if err != nil {
		return err
	}
	r.cluster = r.bed.Cluster
	if r.mirror, err = r.startMirror(); err != nil {
		return err
	}
	begin := time.Now()
	if err := r.bed.Install(); err != nil {
		return err
	}
	t.Logf("millrace installed after %v", time.Since(begin).Round(100*time.Millisecond))
	return nil
}

// stop ends the cluster, and checks that nothing of it stays.
func (r *rig) stop() error {
	if r.bed == nil {
		return nil
	}
	return r.bed.Stop()
}

// kubectl runs kubectl, and fails the test when that fails.
func (r *rig) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return r.bed.Kubectl(t, args...)
}

// apply creates objects, with flags of kubectl.
func (r *rig) apply(t *testing.T, manifest string, flags ...string) {
	t.Helper()
	r.bed.Apply(t, manifest, flags...)
}

// await repeats until there is no error, and returns how long that took.
func await(t *testing.T, patience time.Duration, what string, do func() error) time.Duration {
	t.Helper()
	return shared.bed.Await(t, patience, what, do)
}

// says waits until kubectl says what is wanted.
func (r *rig) says(t *testing.T, patience time.Duration, want string, args ...string) time.Duration {
	t.Helper()
	return r.bed.Says(t, patience, want, args...)
}
