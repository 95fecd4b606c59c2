package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/driver"
)

const nodeAbout = `The CSI driver of a node: it mounts volumes, hands them to "millrace agent", which serves them, and keeps them
alive when the agent is stopped, killed or replaced. It needs CAP_SYS_ADMIN.

A driver that is stopped, killed or replaced leaves every mount in place; the next one takes them back. The
state directory must be the same for both, on a mount that propagates to the host.`

// nodeConfig is what the flags of node say.
type nodeConfig struct {
	driver              driver.Config
	logLevel, logFormat string
}

func nodeCommand() *command.Command {
	f, c := newNode()
	f.Runs(func(rest []string, _ io.Writer) error {
		if err := c.check(f, rest); err != nil {
			return err
		}
		c.driver.Log = commandline.NewLog(os.Stderr, c.logLevel, c.logFormat)
		c.driver.Version = commandline.ReadBuild().Version
		d, err := driver.New(c.driver)
		if err != nil {
			return f.Wrong("%w", err)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		var reaping sync.WaitGroup
		defer reaping.Wait()
		defer stop()
		if os.Getpid() == 1 {
			reaping.Go(func() { reapOrphans(ctx, orphanGrace) })
		}
		return d.Run(ctx)
	})
	return f
}

// newNode makes the flags of node, and what they fill in.
func newNode() (*command.Command, *nodeConfig) {
	c := &nodeConfig{logLevel: "info", logFormat: "text"}
	d := &c.driver
	f := command.New("node", "--node-id ID --endpoint unix:///PATH --agent-socket PATH --state-dir DIR [flags]",
		"the CSI driver of a Kubernetes node: mount volumes and keep them alive", nodeAbout)
	command.Parsed(f, &d.Endpoint, "endpoint", "`unix:///PATH` of the CSI socket", "", driver.EndpointPath)
	f.Text(&d.NodeID, "node-id", "`ID` of this node, as Kubernetes names it")
	command.Parsed(f, &d.AgentSocket, "agent-socket", "`PATH` of the socket on which the agent takes volumes over", "",
		onePath)
	command.Parsed(f, &d.KeeperSocket, "keeper-socket",
		"`PATH` of the socket on which millrace-keeper takes copies of connections, or none", "none", pathOrNone)
	command.Parsed(f, &d.StateDir, "state-dir", "`DIR` for what a restart must know", "", onePath)
	command.Parsed(f, &d.RegistrationDir, "registration-dir", "`DIR` in which kubelet looks for drivers", "", onePath)
	command.Parsed(f, &d.KubeletEndpoint, "kubelet-registration-path",
		"`PATH` of the CSI socket as kubelet sees it (default the endpoint)", "", onePath)
	command.Parsed(f, &d.Health, "health", "`ADDRESS` of /healthz and /readyz: unix:///path or 127.0.0.1:port", "",
		healthAddress)
	command.Parsed(f, &d.MaxVolumes, "max-volumes", "`N` volumes on this node at most", "",
		func(s string) (int64, error) {
			n, err := commandline.CountTo(1 << 20)(s)
			return int64(n), err
		})
	f.Define("tier-dir", "`DIR` below which a volume may name its tier; may be repeated", "",
		absolutePath(&d.Policy.TierDirs))
	f.Define("allow-local", "`DIR` that volumes may show, or a part of it; may be repeated", "",
		absolutePath(&d.Policy.LocalSources))
	f.Logging(&c.logLevel, &c.logFormat)
	f.ValidArgsFunction = cobra.NoFileCompletions
	return f, c
}

// check tells what is missing, or is too much.
func (c *nodeConfig) check(f *command.Command, rest []string) error {
	if len(rest) != 0 {
		return f.Wrong("node takes no arguments, not %q", rest[0])
	}
	d := &c.driver
	for _, required := range []struct{ flag, value string }{
		{"endpoint", d.Endpoint},
		{"node-id", d.NodeID},
		{"agent-socket", d.AgentSocket},
		{"state-dir", d.StateDir},
	} {
		if required.value == "" {
			return f.Wrong("the flag %s is missing", command.Dashed(required.flag))
		}
	}
	return nil
}

// healthAddress takes an address that no other machine reaches.
func healthAddress(s string) (string, error) {
	if s == "" {
		return "", command.ErrEmpty
	}
	return s, driver.CheckHealth(s)
}

// onePath takes an absolute path.
func onePath(s string) (string, error) {
	var path []string
	if err := absolutePath(&path)(s); err != nil {
		return "", err
	}
	return filepath.Clean(s), nil
}

// pathOrNone takes an absolute path; "none" is none.
func pathOrNone(s string) (string, error) {
	if s == "none" {
		return "", nil
	}
	return onePath(s)
}
