// Command millrace mounts remote data as a fast local directory. Each subcommand is a
// file: its flags, its wiring and its exit code; the work is done in the packages.
//
// Exit codes: 0 success, 1 failure, 2 wrong usage. A failure is one line on stderr that begins
// with "millrace: ". What a command was asked for goes to stdout.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	rclone "github.com/rclone/rclone/fs"

	"millrace.io/millrace/cmd/commandline"
)

// command is one subcommand.
type command struct {
	name    string
	summary string
	run     func(args []string, out io.Writer) error
}

func commands() []command {
	return []command{
		{"mount", "show a remote source as a directory", runMount},
		{"unmount", "end a mount, also one whose process has gone", runUnmount},
		{"warm", "fetch files into the cache before they are read", runWarm},
		{"free", "drop what is cached of files", runFree},
		{"status", "show each mount: what it caches and where its reads came from", runStatus},
		{"node", "the CSI driver of a Kubernetes node: mount volumes and keep them alive", runNode},
		{"controller", "make Datasets of Kubernetes into caches, volumes and claims", beside("millrace-controller")},
		{"agent", "serve the volumes of a Kubernetes node", runAgent},
		{"gateway", "show a source to Alluxio as an S3 bucket", beside("millrace-gateway")},
		{"top", "watch what the mounts do, as it happens", runTop},
		{"blocks", "show which part of a file is cached where", runBlocks},
		{"trace", "show each request of the kernel, how long it took and which source served it", runTrace},
		{"doctor", "check this machine, and say what mends what is wrong", runDoctor},
		{"version", "show what this binary was built from", runVersion},
		{"help", "show this, or the help of a command", runHelp},
	}
}

func main() {
	// Its messages are for rclone's own users; what they are about reaches us as errors.
	rclone.SetLogger(slog.DiscardHandler)
	os.Exit(commandline.Tell(dispatch(os.Args[1:], os.Stdout), os.Stderr))
}

// dispatch runs the subcommand that args name.
func dispatch(args []string, out io.Writer) error {
	if len(args) == 0 {
		return &commandline.UsageError{Command: "help", Err: errors.New("a command is missing")}
	}
	name := strings.TrimLeft(args[0], "-")
	if name == "h" {
		name = "help"
	}
	for _, c := range commands() {
		if c.name == name {
			if err := c.run(args[1:], out); !errors.Is(err, flag.ErrHelp) {
				return err
			}
			return nil
		}
	}
	return &commandline.UsageError{Command: "help", Err: fmt.Errorf("there is no command %q", args[0])}
}
