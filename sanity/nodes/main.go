// Command nodes runs a real Kubernetes cluster of two nodes on this machine (sanity/kubenodes) until Ctrl-C, and says how to talk
// to it. With -prepare it only builds what is built once on a machine.
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

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/images"
	"millrace.io/millrace/sanity/kube"
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

// prepareLimit bounds the build, which takes a quarter of an hour on two busy cores with nothing built before.
const prepareLimit = 40 * time.Minute

func run(ctx context.Context, out io.Writer, args []string) error {
	flags := flag.NewFlagSet("nodes", flag.ContinueOnError)
	prepare := flags.Bool("prepare", false, "only build the programs, once on a machine")
	nodes := flags.Int("nodes", 2, "how many nodes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q: there are only flags", flags.Arg(0))
	}
	if *nodes < 1 || *nodes > 9 {
		return fmt.Errorf("-nodes %d: from 1 to 9", *nodes)
	}
	log := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	if *prepare {
		return prepareMachine(ctx, log)
	}
	c, err := kubenodes.Start(ctx, kubenodes.Options{Nodes: *nodes, Images: images.Build, Shm: 6 << 30, Log: log})
	if err != nil {
		return err
	}
	log("%s", c.KubectlLine("get nodes"))
	<-ctx.Done()
	return c.Stop()
}

// prepareMachine builds what is built once. Where there can be no cluster it says so, as the tests do that are skipped then.
func prepareMachine(ctx context.Context, log func(string, ...any)) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	if err := kubenodes.Check(); err != nil {
		log("setup: %v; the tests on a cluster of nodes are skipped without it", err)
		return nil
	}
	if !kube.NodesBuilt() {
		log("setup: building Kubernetes' programs for nodes, once: some minutes")
	}
	if _, err := kube.NodeBinaries(ctx); err != nil {
		return err
	}
	return cluster.Prepare(ctx)
}
