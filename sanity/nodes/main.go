// Command nodes runs a real Kubernetes cluster of two nodes on this machine (sanity/kubenodes) until Ctrl-C: its nodes
// have all images that the chart and its examples name, and a web server has the data of the examples. It prints the
// commands that come next. With -prepare it only builds what is built once on a machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"millrace.io/millrace/deploy/heartbeat"
	"millrace.io/millrace/sanity/images"
	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/machines"
)

func main() {
	machines.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "nodes:", err)
		}
		stop()
		os.Exit(1)
	}
}

type config struct {
	prepare bool
	nodes   int
	link    string
}

func parse(args []string) (config, error) {
	var c config
	flags := flag.NewFlagSet("nodes", flag.ContinueOnError)
	flags.BoolVar(&c.prepare, "prepare", false, "only build the programs and images, once on a machine")
	flags.IntVar(&c.nodes, "nodes", 2, "how many nodes")
	flags.StringVar(&c.link, "link", "bin/cluster",
		"where to put a `LINK` to the directory with kubectl and the kubeconfig")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("argument %q: there are only flags", flags.Arg(0))
	}
	if c.nodes < 1 || c.nodes > 9 {
		return c, fmt.Errorf("-nodes %d: from 1 to 9", c.nodes)
	}
	return c, nil
}

func run(ctx context.Context, out io.Writer, args []string) error {
	config, err := parse(args)
	if err != nil {
		return err
	}
	begin := time.Now()
	log := func(format string, args ...any) {
		fmt.Fprintf(out, "%4.0f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	if config.prepare {
		return prepareMachine(ctx, out, log)
	}
	if err := free(config.link); err != nil {
		return err
	}
	log("starting a control plane and %d nodes", config.nodes)
	stop := heartbeat.Start(out, heartbeat.Interval, func() string { return "        the nodes start" })
	defer stop()
	c, err := kubenodes.Start(ctx, kubenodes.Options{
		Nodes: config.nodes, Shm: 6 << 30, Log: log, Names: map[string]string{mirrorName: kubenodes.ControlPlane},
		Images: func(ctx context.Context, dir string) ([]string, error) { return images.Build(ctx, dir, log) },
	})
	if err != nil {
		return err
	}
	err = opened(ctx, c, config.link, log)
	stop()
	if err == nil {
		fmt.Fprint(out, next(config.link))
		<-ctx.Done()
		fmt.Fprintln(out, "ending the cluster")
	}
	return errors.Join(err, closed(config.link), c.Stop())
}

// opened starts the web server, and links the terminal's directory to where people find it.
func opened(ctx context.Context, c *kubenodes.Cluster, link string, log images.Log) error {
	if err := startMirror(ctx, c); err != nil {
		return fmt.Errorf("the web server: %w", err)
	}
	log("http://%s/ has the data of deploy/examples, for pods", mirrorName)
	dir, err := c.Terminal(ctx)
	if err != nil {
		return err
	}
	return os.Symlink(dir, link)
}
