package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"millrace.io/millrace/sanity/images"
)

const (
	baseDir     = "../../deploy/kustomize/base"
	readerImage = "millrace.test/reader:1"
)

var millraceImage = regexp.MustCompile(`image: (millrace/millrace:\S+)`)

// imageIn is millrace's image in a manifest.
func imageIn(manifest string) string {
	if found := millraceImage.FindStringSubmatch(manifest); found != nil {
		return found[1]
	}
	return "none"
}

// installMillrace installs the kustomize base as a user does, with the Alluxio whose jars the tests have.
func (r *rig) installMillrace(t *testing.T) error {
	t.Helper()
	base, err := filepath.Abs(baseDir)
	if err != nil {
		return err
	}
	alluxio, err := images.Alluxio()
	if err != nil {
		return err
	}
	// Kustomize takes relative paths only.
	dir := filepath.Join(r.cluster.Dir(), "install")
	if base, err = filepath.Rel(dir, base); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	overlay := fmt.Sprintf(`resources: [%s]
patches:
  - target: {kind: Deployment, name: millrace-controller}
    patch: |
      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --alluxio-image=%s}
`, base, alluxio)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := r.cluster.Kubectl(r.ctx, "apply", "--server-side", "-k", dir); err != nil {
		return err
	}
	for _, o := range []string{"deployment/millrace-controller", "daemonset/millrace-node", "daemonset/millrace-agent"} {
		if _, err := r.cluster.Kubectl(r.ctx, "rollout", "status", "-n", namespace, o, "--timeout=90s"); err != nil {
			pods, _ := r.cluster.Kubectl(r.ctx, "describe", "pods", "-n", namespace)
			return fmt.Errorf("%w\n%s", err, pods)
		}
	}
	t.Logf("millrace installed after %v", time.Since(begin).Round(100*time.Millisecond))
	return nil
}
