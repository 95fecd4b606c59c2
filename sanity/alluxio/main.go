// Command alluxio starts a real Alluxio cluster on loopback (sanity/cluster), says how to talk to it, and stops it at
// Ctrl-C. With -check it proves that the cluster works, and stops it at once; with -prepare it only
// does what is done once on a machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"millrace.io/millrace/sanity/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "alluxio:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	var cfg cluster.Config
	flags := flag.NewFlagSet("alluxio", flag.ContinueOnError)
	flags.IntVar(&cfg.Masters, "masters", 3, "how many masters")
	flags.IntVar(&cfg.Workers, "workers", 2, "how many workers")
	flags.StringVar(&cfg.UFS, "ufs", "", "the root under store: a directory or URI; an empty directory without")
	flags.Int64Var(&cfg.BlockSize, "block-size", 64<<20, "the block size of new files, in bytes")
	flags.Int64Var(&cfg.TierQuota, "quota", 1<<30, "what each worker's tier in /dev/shm holds, in bytes")
	check := flags.Bool("check", false, "start, prove that it works, and stop")
	prepare := flags.Bool("prepare", false,
		"only fetch the jars and archive their classes, once on a machine; what fails is said and no failure")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q: there are only flags", flags.Arg(0))
	}
	if *prepare {
		prepareMachine(ctx, out)
		return nil
	}
	if cfg.Masters == 0 {
		return errors.New("-masters 0: at least one")
	}
	cfg.NoWorkers = cfg.Workers == 0
	begin := time.Now()
	c, err := cluster.Start(ctx, cfg)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	err = use(ctx, out, c, took, *check)
	return errors.Join(err, c.Stop())
}

// prepareMachine does what is done once, so that no test waits for it. What fails is said, and no reason to end: the
// tests against Alluxio say it again, and the others need nothing of it.
func prepareMachine(ctx context.Context, out io.Writer) {
	err := cluster.Prepare(ctx)
	switch {
	case errors.Is(err, cluster.ErrMissing):
		fmt.Fprintf(out, "setup: %v; the tests against Alluxio are skipped without it\n", err)
	case err != nil:
		fmt.Fprintf(out, "setup: %v\n", err)
	}
}

// use shows the cluster until the context ends, or checks it.
func use(ctx context.Context, out io.Writer, c *cluster.Cluster, took time.Duration, check bool) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ready after %.1f s: %s leads\n%s\n", took.Seconds(), leader.Name, c.Address())
	for _, s := range c.Servers() {
		fmt.Fprintf(out, "  %-9s %-21s pid %-7d %4d MB  log %s\n", s.Name, s.Address(), s.Pid(), s.RSS()>>20, s.Log)
	}
	if check {
		return prove(ctx, out, c)
	}
	fmt.Fprintf(out, "files put into %s appear in it\nAlluxio's shell: %s\nmillrace:        bin/millrace mount %s "+
		"DIR\nCtrl-C stops it\n",
		c.UFS(), c.ShellCommand(), c.Address())
	<-ctx.Done()
	return nil
}

// prove puts a file into the under store, and reads and lists it through Alluxio.
func prove(ctx context.Context, out io.Writer, c *cluster.Cluster) error {
	const name, text = "proof of life", "read through Alluxio\n"
	if !filepath.IsAbs(c.UFS()) {
		return fmt.Errorf("-check with -ufs %s: it needs a directory", c.UFS())
	}
	path := filepath.Join(c.UFS(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(path) }()
	got, err := c.Shell(ctx, "cat", "/"+name)
	if err != nil {
		return err
	}
	if got != text {
		return fmt.Errorf("the file reads %q through Alluxio: want %q", got, text)
	}
	listing, err := c.Shell(ctx, "ls", "/")
	if err != nil {
		return err
	}
	if !strings.Contains(listing, "100% /"+name) {
		return fmt.Errorf("alluxio fs ls does not show that %q is cached: %s", name, listing)
	}
	fmt.Fprint(out, listing)
	return nil
}
