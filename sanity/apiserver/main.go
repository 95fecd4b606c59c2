// Command apiserver starts a real Kubernetes API on loopback (sanity/kube) with the CRDs and policies of deploy/, says
// how to talk to it, and stops it at Ctrl-C. With -prepare it only builds the programs, once on a machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"millrace.io/millrace/sanity/kube"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "apiserver:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	flags := flag.NewFlagSet("apiserver", flag.ContinueOnError)
	prepare := flags.Bool("prepare", false,
		"only build the programs, once on a machine; what fails is said and no failure")
	manifests := flags.String("deploy", "deploy", "the directory with crd/ and admission/")
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
	s, err := kube.Start(ctx, kube.Options{Controllers: kube.Usual})
	if err != nil {
		return err
	}
	return errors.Join(use(ctx, out, s, *manifests), s.Stop())
}

// prepareLimit bounds the build, which takes twelve minutes on two busy cores with nothing built before.
const prepareLimit = 30 * time.Minute

// prepareMachine builds what is built once, so that no test waits for it. What fails is said, and no reason to end: the
// tests that need it say it again.
func prepareMachine(ctx context.Context, out io.Writer) {
	if kube.Built() {
		return
	}
	fmt.Fprintln(out, "setup: building etcd and a Kubernetes control plane for the controller's tests, once: some "+
		"minutes")
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	_, err := kube.Binaries(ctx, true)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		fmt.Fprintf(out, "setup: %v; the controller's tests are skipped without it\n", err)
	case err != nil:
		fmt.Fprintf(out, "setup: %v\n", err)
	default:
		fmt.Fprintf(out, "setup: built in %v\n", time.Since(begin).Round(time.Second))
	}
}

// use shows the API until the context ends.
func use(ctx context.Context, out io.Writer, s *kube.Server, manifests string) error {
	for _, dir := range []string{"crd", "admission"} {
		if text, err := s.Kubectl(ctx, "apply", "--server-side", "-f", manifests+"/"+dir); err != nil {
			return fmt.Errorf("kubectl apply -f %s/%s: %w: %s", manifests, dir, err, text)
		}
	}
	config, err := s.Kubeconfig("kubectl", "system:masters")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "export KUBECONFIG=%s\n%s is built for it; there are no nodes, so that pods stay "+
		"pending\nmillrace controller --leader-elect=false\nCtrl-C stops it\n", config, s.KubectlPath())
	<-ctx.Done()
	return nil
}
