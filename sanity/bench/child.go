package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"millrace.io/millrace/sanity/session"
)

// children are this program in another role: processes of their own, so that what they cost is not counted as anybody
// else's. The first argument names the role.
var children = map[string]func(args []string) error{
	serveMode:  serveChild,
	clientMode: clientChild,
}

// startChild starts this program in a role that goes on until its standard input ends, and returns the first line
// that it prints, which has so many words.
func startChild(s *session.Session, words int, args ...string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := session.Command(context.WithoutCancel(s.Context()), self, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = read.Close() }()
	cmd.Stdout = write
	_, err = s.StartCmd(cmd)
	_ = write.Close()
	if err != nil {
		return nil, err
	}
	s.Defer(func() { _ = in.Close() })
	_ = read.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the process %q did not start: %w", args, err)
	}
	said := strings.Fields(line)
	if len(said) != words {
		return nil, fmt.Errorf("the process %q said %q", args, line)
	}
	return said, nil
}
