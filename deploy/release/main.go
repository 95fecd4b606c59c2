// Command release makes millrace's release of a version out of a checkout, with no daemon: programs for Linux in
// tarballs, container images, the chart, a bill of materials (SBOM) of each program, checksums of all and a signature
// of these. The same commit and the same Go make the same files, bit for bit, wherever and whenever they are made.
//
//	make release VERSION=v0.2.0 SIGNING_KEY=~/.ssh/millrace-release
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
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"millrace.io/millrace/deploy/heartbeat"
)

type config struct {
	version, out, key, signers string
	dirty                      bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "release:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	s, err := checkout(ctx, c.version, c.dirty)
	if err != nil {
		return err
	}
	if c.key != "" {
		// What would fail at the end fails before anything is built.
		if err := trusted(c.key, c.signers); err != nil {
			return err
		}
	}
	if c.out, err = filepath.Abs(c.out); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.out), 0o755); err != nil {
		return err
	}
	// A release is whole or not there.
	dir, err := os.MkdirTemp(filepath.Dir(c.out), ".release-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r := &release{source: s, out: out, dir: filepath.Join(dir, "files"), work: filepath.Join(dir, "work")}
	if err := r.make(ctx, c); err != nil {
		return err
	}
	if err := os.RemoveAll(c.out); err != nil {
		return err
	}
	if err := os.Rename(r.dir, c.out); err != nil {
		return err
	}
	if err := show(out, c.out); err != nil || c.key != "" {
		return err
	}
	_, err = fmt.Fprintln(out, "not signed: SIGNING_KEY names no key")
	return err
}

func parse(args []string) (config, error) {
	var c config
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&c.version, "version", "", "`VERSION` to release: v1.2.3 or v1.2.3-rc.1")
	flags.StringVar(&c.out, "out", "bin/release", "`DIR` for the files; what is in it is removed")
	flags.StringVar(&c.key, "signing-key", "", "`FILE` with the private ssh key that signs (default: no signature)")
	flags.StringVar(&c.signers, "signers", "deploy/release/allowed_signers",
		"`FILE` in which users find the public key")
	flags.BoolVar(&c.dirty, "allow-dirty", false, "release a checkout with changes that are not committed, to try it")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("argument %q: there are only flags", flags.Arg(0))
	}
	return c, checkVersion(c.version)
}

// release is one that is being made: the files of the release are in dir, and what they are made of in work.
type release struct {
	source
	out       io.Writer
	dir, work string
	// part is what the step at work is at.
	part heartbeat.Part
}

// make makes all files of the release.
func (r *release) make(ctx context.Context, c config) error {
	for _, dir := range []string{r.dir, r.work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	steps := r.steps(c)
	fmt.Fprintf(r.out, "release %s of commit %.12s, with %s: %d steps, 2 min; 10 min where nothing is built yet\n",
		r.version, r.commit, r.goVersion, len(steps))
	return r.take(ctx, steps)
}

// show prints what was made, and the checksum of all, by which two releases are compared.
func show(out io.Writer, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%8.1f MB  %s\n", float64(info.Size())/1e6, filepath.Join(dir, e.Name()))
	}
	sum, err := sumOf(filepath.Join(dir, checksums))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "sha256 of %s: %s\n", checksums, sum)
	return nil
}

// output runs a command with variables added to the environment and gives what it prints; its error has what it said.
func output(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	inGroup(cmd)
	cmd.Env = append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out,
			strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// inGroup has a command be told to end with all that it runs, which the go command leaves behind when it is told alone.
func inGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
}
