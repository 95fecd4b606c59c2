package kubenodes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kubectlPatience bounds one kubectl, whatever it waits for.
const kubectlPatience = 5 * time.Minute

// Kubectl runs kubectl as an administrator, and returns what it printed; the error has what it said.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.KubectlInput(ctx, "", args...)
}

// KubectlInput is Kubectl with a standard input.
func (c *Cluster) KubectlInput(ctx context.Context, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, kubectlPatience)
	defer cancel()
	cmd := c.KubectlCommand(ctx, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// KubectlCommand is a kubectl that can be started.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := c.control.InNetwork(ctx, append([]string{c.program("kubectl")}, args...)...)
	cmd.Env = append(c.environment(), "KUBECONFIG="+c.kubeconfig("admin"), "KUBECACHEDIR="+c.file("kubectl"))
	return cmd
}

func (c *Cluster) file(name string) string    { return filepath.Join(c.dir, name) }
func (c *Cluster) program(name string) string { return filepath.Join(c.bin, name) }

// Dir is the directory of all that the cluster writes; what is put there need not be removed.
func (c *Cluster) Dir() string { return c.dir }

// environment is what services and commands get.
func (c *Cluster) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=/run", "LC_ALL=C.UTF-8"}
}

func (c *Cluster) addressOf(machine string) string {
	for i := range c.options.Nodes {
		if nodeName(i) == machine {
			return nodeAddress(i).String()
		}
	}
	return ControlPlane
}

// prefix is an address in the machines' network.
func prefix(address string) netip.Prefix { return netip.PrefixFrom(netip.MustParseAddr(address), 24) }

// KubectlLine is kubectl with arguments, as one types it at a terminal of this machine.
func (c *Cluster) KubectlLine(args string) string {
	return fmt.Sprintf("nsenter -t %d -n -- %s --kubeconfig %s %s", c.control.PID(), c.program("kubectl"),
		c.kubeconfig("admin"), args)
}
