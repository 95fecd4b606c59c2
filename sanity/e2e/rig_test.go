package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/images"
	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/machines"
)

// rig is the cluster that all tests share, millrace installed in it.
type rig struct {
	ctx context.Context // ends when the run is interrupted

	once sync.Once
	err  error // why there is none

	cluster *kubenodes.Cluster
	mirror  *machines.Machine // the web server's machine
}

var shared rig

const (
	namespace     = "millrace-system"
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
		fmt.Fprintf(os.Stderr, "%s failed, and its cluster is kept until Ctrl-C: %s\n", t.Name(), r.cluster.KubectlLine("get pods -A"))
		<-r.ctx.Done()
	}
}

func (r *rig) start(t *testing.T) error {
	t.Helper()
	var err error
	r.cluster, err = kubenodes.Start(r.ctx, kubenodes.Options{
		Nodes: 2, Shm: 6 << 30, Log: t.Logf, Names: map[string]string{mirrorName: mirrorAddress}, Images: r.images(t),
	})
	if err != nil {
		return err
	}
	if r.mirror, err = r.startMirror(); err != nil {
		return err
	}
	return r.installMillrace(t)
}

// stop ends the cluster, and checks that nothing of it stays.
func (r *rig) stop() error {
	if r.cluster == nil {
		return nil
	}
	return errors.Join(r.cluster.Stop(), leftovers(filepath.Base(r.cluster.Dir())))
}

// leftovers looks for mounts, cgroups and files of the cluster on this machine.
func leftovers(name string) error {
	var left []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), name) {
		left = append(left, "mounts")
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + name, filepath.Join(os.TempDir(), name), "/proc/[0-9]*/root/tmp/" + name} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		left = append(left, found...)
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return nil
}

// images writes the archives of all images.
func (r *rig) images(t *testing.T) func(context.Context, string) ([]string, error) {
	t.Helper()
	return func(ctx context.Context, dir string) ([]string, error) {
		archives, err := images.Build(ctx, dir, t.Logf)
		if err != nil {
			return nil, err
		}
		reader, err := images.Program(ctx, dir, readerImage, "millrace.io/millrace/sanity/e2e/reader")
		return append(archives, reader), err
	}
}

// kubectl runs kubectl, and fails the test when that fails.
func (r *rig) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply creates objects, with flags of kubectl.
func (r *rig) apply(t *testing.T, manifest string, flags ...string) {
	t.Helper()
	if out, err := r.cluster.KubectlInput(t.Context(), manifest, append([]string{"apply", "-f", "-"}, flags...)...); err != nil {
		t.Fatal(out, err)
	}
}

// await repeats until there is no error, and returns how long that took.
func await(t *testing.T, patience time.Duration, what string, do func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := do()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > patience {
			t.Fatalf("%s: not after %v: %v", what, patience, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-shared.ctx.Done():
			t.Fatal(shared.ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// says waits until kubectl says what is wanted.
func (r *rig) says(t *testing.T, patience time.Duration, want string, args ...string) time.Duration {
	t.Helper()
	return await(t, patience, "kubectl "+strings.Join(args, " "), func() error {
		out, err := r.cluster.Kubectl(t.Context(), args...)
		if err == nil && strings.TrimSpace(out) != want {
			err = fmt.Errorf("%q and not %q", strings.TrimSpace(out), want)
		}
		return err
	})
}
