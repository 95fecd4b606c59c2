package e2e

import (
	"fmt"
	"testing"
	"time"
)

const (
	baseDir     = "../../deploy/kustomize/base"
	readerImage = "millrace.test/reader:1"
)

// installMillrace installs the kustomize base as a user does.
func (r *rig) installMillrace(t *testing.T) error {
	t.Helper()
	begin := time.Now()
	if _, err := r.cluster.Kubectl(r.ctx, "apply", "--server-side", "-k", baseDir); err != nil {
		return err
	}
	for _, o := range []string{
		"deployment/millrace-controller", "daemonset/millrace-keeper",
		"daemonset/millrace-node", "daemonset/millrace-agent",
	} {
		if _, err := r.cluster.Kubectl(r.ctx, "rollout", "status", "-n", namespace, o, "--timeout=90s"); err != nil {
			pods, _ := r.cluster.Kubectl(r.ctx, "describe", "pods", "-n", namespace)
			return fmt.Errorf("%w\n%s", err, pods)
		}
	}
	t.Logf("millrace installed after %v", time.Since(begin).Round(100*time.Millisecond))
	return nil
}
