package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"millrace.io/millrace/sanity/images"
	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/kubenodes"
)

// Namespace is where millrace is installed. It is installed from base, and from what Kubernetes 1.36 has beside it.
const (
	Namespace = "millrace-system"
	base      = "../../deploy/kustomize/base"
	beside    = "../../deploy/kustomize/publish-secrets/publish-secrets.yaml"
)

// Bed is a cluster. It ends with its context, which is the whole run's.
type Bed struct {
	*kubenodes.Cluster

	ctx context.Context
}

// Image writes an archive of an image into a directory, and returns its path.
type Image func(ctx context.Context, dir string) (string, error)

// Start starts a cluster with all images that the chart and its examples name, and one more where more is not nil.
func Start(ctx context.Context, options kubenodes.Options, more Image) (*Bed, error) {
	options.Images = func(ctx context.Context, dir string) ([]string, error) {
		archives, err := images.Build(ctx, dir, options.Log)
		if err != nil || more == nil {
			return archives, err
		}
		archive, err := more(ctx, dir)
		return append(archives, archive), err
	}
	cluster, err := kubenodes.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	return &Bed{Cluster: cluster, ctx: ctx}, nil
}

// Install installs the kustomize base and what is beside it, as a user does.
func (b *Bed) Install() error {
	if _, err := b.Cluster.Kubectl(b.ctx, "apply", "--server-side", "-k", base); err != nil {
		return err
	}
	policy, err := os.ReadFile(beside)
	if err != nil {
		return err
	}
	apply := []string{"apply", "--server-side", "-f", "-"}
	if _, err := b.KubectlInput(b.ctx, kube.Served(string(policy)), apply...); err != nil {
		return err
	}
	for _, o := range []string{
		"deployment/millrace-controller", "daemonset/millrace-keeper",
		"daemonset/millrace-node", "daemonset/millrace-agent",
	} {
		if _, err := b.Cluster.Kubectl(b.ctx, "rollout", "status", "-n", Namespace, o, "--timeout=90s"); err != nil {
			pods, _ := b.Cluster.Kubectl(b.ctx, "describe", "pods", "-n", Namespace)
			return fmt.Errorf("%w\n%s", err, pods)
		}
	}
	return nil
}

// Stop ends the cluster, and checks that nothing of it stays.
func (b *Bed) Stop() error {
	return errors.Join(b.Cluster.Stop(), leftovers(filepath.Base(b.Dir())))
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
	for _, pattern := range []string{
		"/sys/fs/cgroup/*/" + name, filepath.Join(os.TempDir(), name), "/proc/[0-9]*/root/tmp/" + name,
	} {
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

// OnNodes tells what Datasets left on the nodes: mounts, files in memory, and processes. What an agent has cached by
// itself, for volumes without Alluxio, it keeps within bounds.
func (b *Bed) OnNodes(ctx context.Context) error {
	const script = `grep csi.millrace.io /proc/self/mountinfo | grep -v "plugins/csi.millrace.io /"
find /dev/shm -mindepth 1 -not -path '/dev/shm/millrace*'
ls -d /var/lib/kubelet/plugins/kubernetes.io/csi/csi.millrace.io/* 2>/dev/null
pgrep -a java
exit 0`
	for _, m := range b.Nodes() {
		// What finds nothing says so by its exit code; that the node was asked is another matter.
		left, err := m.Command(ctx, "sh", "-c", script).Output()
		if err != nil {
			return fmt.Errorf("%s cannot be asked: %w", m.Name(), err)
		}
		if text := strings.TrimSpace(string(left)); text != "" {
			return fmt.Errorf("left on %s: %s", m.Name(), text)
		}
	}
	return nil
}
