// Command install applies the manifest that a command renders, by kubectl, and waits until all Deployments and
// DaemonSets in it are ready. It says what each of them waits for, and ends with 1 at the first thing that cannot mend
// itself, with its name and what mends it.
//
//	install -namespace millrace-system -kubectl kubectl -- helm template millrace deploy/chart ...
//
// The manifest is rendered and applied here; what a cluster's state means is in state.go and verdict.go.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"millrace.io/millrace/deploy/heartbeat"
)

type config struct {
	namespace string
	kubectl   []string
	render    []string
	patience  time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "deploy:", err)
		}
		stop()
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var c config
	var kubectl string
	flags := flag.NewFlagSet("install", flag.ContinueOnError)
	flags.StringVar(&c.namespace, "namespace", "millrace-system", "`NAMESPACE` of the workloads")
	flags.StringVar(&kubectl, "kubectl", "kubectl", "`COMMAND` that is kubectl, with its arguments")
	flags.DurationVar(&c.patience, "patience", 5*time.Minute, "how `LONG` to wait for what may yet mend itself")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	c.kubectl, c.render = strings.Fields(kubectl), flags.Args()
	if len(c.kubectl) == 0 {
		return c, errors.New("-kubectl is empty: name a command")
	}
	if len(c.render) == 0 {
		return c, errors.New("no command that renders the manifest: install [flags] -- COMMAND")
	}
	return c, nil
}

func run(ctx context.Context, out io.Writer, args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	i := &installation{config: c, out: out, begin: time.Now()}
	if err := i.reach(ctx); err != nil {
		return err
	}
	manifest, err := i.rendered(ctx)
	if err != nil {
		return err
	}
	parts, err := partsOf(manifest)
	if err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	before := i.look(ctx)
	if err := i.apply(ctx, manifest); err != nil {
		return err
	}
	if err := i.await(ctx, parts, before); err != nil {
		return err
	}
	i.say("installed")
	fmt.Fprintf(out, next, strings.Join(c.kubectl, " "))
	return nil
}

// next tells what comes after it.
const next = `
next: a Dataset with its runtime, and a pod that mounts its claim; for the web server of make nodes

  %[1]s apply -f deploy/examples/hbase
  %[1]s wait --for=condition=complete job/copy --timeout=5m
  %[1]s logs job/copy

`

// installation is one that is on its way.
type installation struct {
	config

	out   io.Writer
	begin time.Time
	spoke time.Time // of the last line
}

// say writes a line with the time since the start.
func (i *installation) say(format string, args ...any) {
	i.spoke = time.Now()
	fmt.Fprintf(i.out, "%4.0f s  %s\n", time.Since(i.begin).Seconds(), fmt.Sprintf(format, args...))
}

// reach says which cluster kubectl talks to, and fails where none answers.
func (i *installation) reach(ctx context.Context) error {
	const none = "KUBECONFIG names a cluster, KUBECTL another kubectl, and make nodes starts a cluster on this machine"
	if _, err := exec.LookPath(i.kubectl[0]); err != nil {
		return fmt.Errorf("there is no %s here: %s", i.kubectl[0], none)
	}
	server, err := i.command(ctx, "", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		return fmt.Errorf("%s names no cluster: %w\n  %s", i.kubectl[0], err, none)
	}
	if _, err := i.command(ctx, "", "get", "--raw", "/readyz", "--request-timeout=8s"); err != nil {
		return fmt.Errorf("no cluster answers at %s: %w\n  %s", server, err, none)
	}
	i.say("installing into the namespace %s of %s", i.namespace, server)
	return nil
}

// rendered is the manifest.
func (i *installation) rendered(ctx context.Context) (string, error) {
	stop := heartbeat.Start(i.out, heartbeat.Interval, func() string { return "        rendering the chart" })
	defer stop()
	cmd := exec.CommandContext(ctx, i.render[0], i.render[1:]...)
	text, err := output(cmd)
	if err != nil {
		return "", fmt.Errorf("the chart cannot be rendered: %w", err)
	}
	return text, nil
}

// apply applies the manifest.
func (i *installation) apply(ctx context.Context, manifest string) error {
	stop := heartbeat.Start(i.out, heartbeat.Interval, func() string { return "        applying" })
	defer stop()
	text, err := i.command(ctx, manifest, "apply", "--server-side", "--force-conflicts", "-f", "-")
	if err != nil {
		return fmt.Errorf("kubectl apply: %w", err)
	}
	i.say("%d objects applied", strings.Count(text, "\n"))
	return nil
}

// command runs kubectl, and returns what it printed.
func (i *installation) command(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, i.kubectl[0], append(i.kubectl[1:len(i.kubectl):len(i.kubectl)], args...)...)
	cmd.Stdin = strings.NewReader(input)
	return output(cmd)
}

// output is what a command prints; the error has what it said.
func output(cmd *exec.Cmd) (string, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			return "", errors.New(text)
		}
		return "", err
	}
	return out.String(), nil
}
