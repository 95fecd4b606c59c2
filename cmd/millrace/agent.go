package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/socket"
)

const agentAbout = `Serves the FUSE sessions of a node's volumes. "millrace node" mounts them and hands them over through
--attach-socket; --socket answers millrace status, top, trace and blocks.

An agent that is stopped, killed or replaced leaves every mount in place: the driver gives them to the next one,
and who reads meanwhile waits. It needs no privilege but access to the tier directories; with CAP_SYS_ADMIN cached
files are read by the kernel itself.`

// defaultMemory is what all volumes of an agent bring bytes in through.
const defaultMemory = 64 << 20

// agentConfig is what the flags of agent say.
type agentConfig struct {
	attachSocket, socket string
	tierDirs             []string
	quota, keep, memory  int64
	allowLocal           []string
	localHosts           []string
	probes, networkDir   string
	logLevel, logFormat  string
}

func agentCommand() *command.Command {
	f, c := newAgent()
	f.Runs(func(rest []string, _ io.Writer) error {
		if len(rest) != 0 {
			return f.Wrong("agent takes no arguments, not %q", rest[0])
		}
		log := commandline.NewLog(os.Stderr, c.logLevel, c.logFormat)
		if err := c.prepare(); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return c.serve(ctx, log)
	})
	return f
}

// newAgent makes the flags of agent, and what they fill in.
func newAgent() (*command.Command, *agentConfig) {
	c := &agentConfig{quota: defaultQuota, memory: defaultMemory, logLevel: "info", logFormat: "text"}
	f := command.New("agent", "[flags]", "serve the volumes of a Kubernetes node", agentAbout)
	f.Text(&c.attachSocket, "attach-socket",
		"`PATH` of the socket on which the driver hands volumes over (default attach.sock in the runtime directory)")
	f.Text(&c.socket, "socket",
		"`PATH` of the socket that answers status and the like (default agent.sock in the runtime directory)")
	f.Define("tier-dir", "`DIR` below which volumes may keep what was read; may be repeated, the first is the default",
		defaultTierRoot(), absolutePath(&c.tierDirs))
	command.Parsed(f, &c.quota, "quota", "`SIZE` of the tier of a volume that names none", "2Gi", commandline.SizeOver)
	command.Parsed(f, &c.keep, "keep", "`SIZE` that a tier directory may have with the caches of volumes that are gone",
		"half of its file system", commandline.SizeOver)
	command.Parsed(f, &c.memory, "memory", "`SIZE` of the memory that all volumes bring bytes in through", "64Mi",
		commandline.SizeOver)
	f.Define("allow-local", "`DIR` that volumes may show, or a part of it; may be repeated", "",
		absolutePath(&c.allowLocal))
	f.Define("local-host", "`HOST`, as Alluxio's workers of this machine name it, whose tiers are read as files; may "+
		"be repeated", "those of this machine", func(s string) error {
		if s == "" {
			return command.ErrEmpty
		}
		c.localHosts = append(c.localHosts, s)
		return nil
	})
	f.Text(&c.networkDir, "network-dir",
		"`DIR` with what holds for sources that say nothing: ca.crt (believed beside the system's authorities), "+
			"HTTPS_PROXY, HTTP_PROXY, NO_PROXY")
	command.Parsed(f, &c.probes, "metrics-listen",
		"`[HOST]:PORT` of health and metrics, on all addresses without a host; none is no listener", "none",
		commandline.ParseProbes)
	f.Logging(&c.logLevel, &c.logFormat)
	f.ValidArgsFunction = cobra.NoFileCompletions
	return f, c
}

// absolutePath adds a value to list.
func absolutePath(list *[]string) func(string) error {
	return func(s string) error {
		if !filepath.IsAbs(s) {
			return errors.New("not an absolute path: accepted are paths that begin with /")
		}
		*list = append(*list, filepath.Clean(s))
		return nil
	}
}

// prepare fills in what depends on the machine.
func (c *agentConfig) prepare() error {
	if len(c.tierDirs) == 0 {
		root := defaultTierRoot()
		// A name in /dev/shm is anybody's to take.
		if err := agent.PrivateDir(root); err != nil {
			return fmt.Errorf("the default tier directory cannot be used: %w; give another one with --tier-dir", err)
		}
		c.tierDirs = []string{root}
	}
	if c.attachSocket != "" && c.socket != "" {
		return nil
	}
	dir, err := agent.RuntimeDir()
	if err != nil {
		return err
	}
	if c.attachSocket == "" {
		c.attachSocket = filepath.Join(dir, "attach.sock")
	}
	if c.socket == "" {
		c.socket = filepath.Join(dir, "agent.sock")
	}
	return nil
}

// serve answers on both sockets until ctx ends.
func (c *agentConfig) serve(ctx context.Context, log *slog.Logger) error {
	raiseFileLimit(log)
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + fuse.WaitingThreads)
	// A predecessor that is ending, or whose end hangs, still serves what this one is about to be given.
	alone, err := socket.Alone(ctx, c.attachSocket)
	if err != nil {
		return err
	}
	defer func() { _ = alone.Close() }()
	attach, err := socket.Listen(c.attachSocket)
	if err != nil {
		return err
	}
	defer func() { _ = attach.Close() }()
	ask, err := socket.Listen(c.socket)
	if err != nil {
		return err
	}
	server := agent.New(log)
	var probes net.Listener
	if c.probes != "" {
		if probes, err = commandline.Listen(ctx, "--metrics-listen", c.probes); err != nil {
			return errors.Join(err, ask.Close())
		}
	}
	var asking sync.WaitGroup
	defer endsInTime(asking.Wait)
	asked, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	asking.Go(func() {
		if err := server.Serve(asked, ask); err != nil {
			log.Error("the socket no longer answers", "error", err)
		}
	})
	if probes != nil {
		asking.Go(func() {
			if err := server.ServeProbes(asked, probes); err != nil {
				log.Error("health and metrics no longer answer", "error", err)
			}
		})
	}
	b := &backend{
		tierDirs: c.tierDirs, quota: c.quota, keep: c.keep, allowLocal: c.allowLocal, localHosts: c.localHosts,
		networkDir: c.networkDir,
		budget:     embedded.NewBudget(c.memory), log: log,
	}
	defer endsInTime(b.pruned.Wait)
	sessions := agent.NewSessions(b.open, handover.Policy{TierDirs: c.tierDirs, LocalSources: c.allowLocal}, server,
		log)
	log.Info("waiting for volumes", "socket", c.attachSocket)
	return sessions.Serve(ctx, attach)
}

// raiseFileLimit takes all the descriptors that the process may have: each cached file that is open is one.
func raiseFileLimit(log *slog.Logger) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= limit.Max {
		return
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		log.Debug("the limit of open files stays", "error", err)
	}
}
