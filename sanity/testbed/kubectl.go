package testbed

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Kubectl runs kubectl, and fails the test when that fails.
func (b *Bed) Kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.Cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Apply creates objects, with flags of kubectl.
func (b *Bed) Apply(t *testing.T, manifest string, flags ...string) {
	t.Helper()
	out, err := b.KubectlInput(t.Context(), manifest, append([]string{"apply", "-f", "-"}, flags...)...)
	if err != nil {
		t.Fatal(out, err)
	}
}

// Await repeats until there is no error, and returns how long that took.
func (b *Bed) Await(t *testing.T, patience time.Duration, what string, do func() error) time.Duration {
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
		case <-b.ctx.Done():
			t.Fatal(b.ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Says waits until kubectl says what is wanted.
func (b *Bed) Says(t *testing.T, patience time.Duration, want string, args ...string) time.Duration {
	t.Helper()
	return b.Await(t, patience, "kubectl "+strings.Join(args, " "), func() error {
		out, err := b.Cluster.Kubectl(t.Context(), args...)
		if err == nil && strings.TrimSpace(out) != want {
			err = fmt.Errorf("%q and not %q", strings.TrimSpace(out), want)
		}
		return err
	})
}
