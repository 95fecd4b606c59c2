package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"millrace.io/millrace/sanity/session"
)

// rcloneVersion is what is compared with, and also the version of the library in go.mod.
const rcloneVersion = "v1.76.0"

// buildRclone builds rclone from its module, once for all runs, and returns the program's path.
func buildRclone(s *session.Session) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "millrace-bench", "rclone-"+rcloneVersion)
	bin := filepath.Join(dir, "rclone")
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	fmt.Printf("building rclone %s, once, which takes some minutes\n", rcloneVersion)
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Minute)
	defer cancel()
	cmd := session.Command(ctx, "go", "install", "github.com/rclone/rclone@"+rcloneVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	_, err = session.RunCmd(ctx, cmd)
	return bin, err
}

// lookUp is the path of a program, "" where it is not installed.
func lookUp(program string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		return ""
	}
	return path
}

// installed reports whether a program is there, and once says what is skipped when it is not.
func (b *bench) installed(program, needed string) bool {
	if lookUp(program) != "" {
		return true
	}
	if !b.skipped[needed] {
		b.skipped[needed] = true
		fmt.Printf("    %s is skipped: %s is not installed\n", needed, program)
	}
	return false
}
