// Package csi_test asks the CSI driver what an orchestrator asks: over real gRPC, with real FUSE mounts, real
// processes, and real kills.
//
// TestMain builds the program and upstream's csi-sanity once. A test makes a node (rig_test.go): a directory with
// all sockets and state, a web server as the source, and the two halves of the program, as processes that can be
// killed, or in this process. In the end nothing may be mounted below the directory, and no process left.
package csi_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/session"
)

// base is the directory below which all tests work, so that leftovers are found; bin, keeperBin and sanityBin are the
// programs in it, otherBin another build of the first.
var base, bin, keeperBin, otherBin, sanityBin string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	flag.Parse()
	if testing.Short() || !mountpoint.HasSysAdmin() {
		return m.Run() // each test says why it is skipped
	}
	var err error
	if base, err = os.MkdirTemp("", "millrace-csi-"); err == nil {
		base, err = filepath.EvalSymlinks(base)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin, otherBin, sanityBin = filepath.Join(base, "millrace"), filepath.Join(base, "millrace-next"),
		filepath.Join(base, "csi-sanity")
	keeperBin = filepath.Join(base, "millrace-keeper")
	code := 1
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if left := leftoverMounts(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "mounts were left behind:", left)
		code = 1
	}
	_ = os.RemoveAll(base)
	return code
}

// build builds the programs.
func build() error {
	const millrace = "millrace.io/millrace/cmd/millrace"
	for out, args := range map[string][]string{
		bin: {millrace},
		// Without symbols, it is another build to all that look.
		otherBin:  {"-ldflags=-s -w", millrace},
		keeperBin: {"millrace.io/millrace/cmd/millrace-keeper"},
		sanityBin: {"github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		cmd := session.Command(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", out},
			args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if _, err := session.RunCmd(ctx, cmd); err != nil {
			return err
		}
	}
	return nil
}

// leftoverMounts unmounts and names what is mounted below the directory of the tests.
func leftoverMounts() []string {
	mounts, _ := mountpoint.Below(base)
	var left []string
	for _, m := range mounts {
		left = append(left, m.MountPoint)
		_ = mountpoint.Detach(m.MountPoint, mountpoint.Abruptly)
	}
	return left
}
