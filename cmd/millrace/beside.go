package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/command"
)

// beside is a command that is a program of its own, in the directory of this one or else in PATH. This process becomes
// it, so that signals, the exit code and the process's number are those of the command. Its flags and its help are the
// program's.
func beside(name, summary string) *command.Command {
	program := "millrace-" + name
	f := command.New(name, "[flags]", summary, "")
	f.DisableFlagParsing = true
	f.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return completeBeside(cmd, program, append(args, typed))
	}
	f.Runs(func(args []string, _ io.Writer) error {
		path, err := find(program)
		if err != nil {
			return err
		}
		err = syscall.Exec(path, append([]string{program}, args...), os.Environ()) //nolint:gosec // Its name is ours.
		return fmt.Errorf("%s: %w", path, err)
	})
	return f
}

// completeBeside asks the program for what completes args: a line each, and last the directive for the shell.
func completeBeside(cmd *cobra.Command, program string, args []string) ([]string, cobra.ShellCompDirective) {
	path, err := find(program)
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	answer, err := exec.CommandContext(cmd.Context(), path, append([]string{cobra.ShellCompRequestCmd}, args...)...).Output() //nolint:gosec // Its name is ours.
	lines := strings.Split(strings.TrimSpace(string(answer)), "\n")
	last := len(lines) - 1
	directive, notNumber := strconv.Atoi(strings.TrimPrefix(lines[last], ":"))
	if err != nil || notNumber != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return lines[:last], cobra.ShellCompDirective(directive)
}

// find is where a program of millrace is.
func find(program string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), program)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err = exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("the program %s is neither beside %s nor in PATH; it is installed together with millrace",
			program, self)
	}
	return path, err
}
