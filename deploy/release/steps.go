package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"millrace.io/millrace/deploy/heartbeat"
)

// step is one of the making of a release.
type step struct {
	name string
	do   func(context.Context) error
}

// steps are those of a release, in their order.
func (r *release) steps(c config) []step {
	all := []step{
		{"man pages and completion", r.manual},
		{"programs for linux/amd64", func(ctx context.Context) error { return r.programs(ctx, "amd64") }},
		{"programs for linux/arm64", func(ctx context.Context) error { return r.programs(ctx, "arm64") }},
		{"bills of materials", r.materials},
		{"tarballs", r.tarballs},
		{"images", r.images},
		{"chart", r.chart},
		{"checksums", func(context.Context) error { return writeChecksums(r.dir) }},
	}
	if c.key != "" {
		all = append(all, step{"signature", func(ctx context.Context) error {
			return sign(ctx, filepath.Join(r.dir, checksums), c.key, c.signers)
		}})
	}
	return all
}

// take takes the steps one after the other, and says of each which of how many it is and how far it has come.
func (r *release) take(ctx context.Context, steps []step) error {
	for i, s := range steps {
		name := fmt.Sprintf("%d of %d, %s", i+1, len(steps), s.name)
		r.part.Say("")
		begin := time.Now()
		stop := heartbeat.Start(r.out, heartbeat.Interval, func() string { return r.part.After(name) })
		err := s.do(ctx)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(r.out, "%s: done in %.1f s\n", name, time.Since(begin).Seconds())
	}
	return nil
}

// follow runs a command with variables added to the environment. What it prints last is what the step is at.
func (r *release) follow(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	inGroup(cmd)
	cmd.Env = append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		r.part.Say("%s", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}
