package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// beside is a command that is a program of its own, in the directory of this one or else in PATH. This process becomes
// it, so that signals, the exit code and the process's number are those of the command.
func beside(program string) func([]string, io.Writer) error {
	return func(args []string, _ io.Writer) error {
		path, err := find(program)
		if err != nil {
			return err
		}
		err = syscall.Exec(path, append([]string{program}, args...), os.Environ()) //nolint:gosec // Its name is ours.
		return fmt.Errorf("%s: %w", path, err)
	}
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
		return "", fmt.Errorf("the program %s is neither beside %s nor in PATH; it is installed together with millrace", program, self)
	}
	return path, err
}
