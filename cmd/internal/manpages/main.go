// Command manpages writes the man pages and the completion scripts of all programs below a directory: man1/*.1,
// bash/millrace, zsh/_millrace and fish/millrace.fish. The pages bear the date $SOURCE_DATE_EPOCH where that is set.
//
//	go run ./cmd/internal/manpages DIR
//
// The pages are written by tests of the programs, so that what makes them is linked with no program.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"millrace.io/millrace/cmd/command/manpage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manpages:", err)
		os.Exit(1) //nolint:gocritic // What is deferred is the end of this process's signals.
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return errors.New("one DIR to write to is wanted")
	}
	dir, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	pages := filepath.Join(dir, "man1")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	// One after the other: the page of millrace for a program beside it gives way to that program's own.
	for _, program := range []string{"millrace", "millrace-controller", "millrace-gateway"} {
		fmt.Printf("man pages of %s\n", program)
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-vet=off", "-run", "^TestManPages$",
			"millrace.io/millrace/cmd/"+program)
		cmd.Env = append(os.Environ(), manpage.DirVar+"="+pages)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, out)
		}
	}
	fmt.Println("completion scripts")
	return completion(ctx, dir)
}

// completion has millrace print its scripts, each into the file where its shell looks for it.
func completion(ctx context.Context, dir string) error {
	for _, script := range []struct{ shell, name string }{
		{"bash", "millrace"}, {"zsh", "_millrace"}, {"fish", "millrace.fish"},
	} {
		text, err := exec.CommandContext(ctx, "go", "run", "millrace.io/millrace/cmd/millrace", "completion",
			script.shell).Output()
		if err != nil {
			return fmt.Errorf("completion for %s: %w", script.shell, err)
		}
		path := filepath.Join(dir, script.shell, script.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
