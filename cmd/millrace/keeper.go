package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

// A mount is two processes: the keeper, which is the one that was started, and its child, which mounts and serves.
// The child gives the keeper copies of the connection's device and of its state, over a socket whose number
// is in keeperVar. A child that dies without a farewell is replaced by another one, which gets both back as the
// descriptors behind that socket, and whoever reads the mount meanwhile waits.
//
// keeperVar is that number, how many descriptors follow, and the directory in which the command was given.
const keeperVar = "MILLRACE_KEEPER"

// What a child says, one byte each.
const (
	// sayKept comes with the device and the state, once the mount answers.
	sayKept = 'k'
	// sayServing is what a successor says once it serves.
	sayServing = 's'
	// sayEnded comes before an exit that is meant, whatever its code.
	sayEnded = 'e'
)

const (
	// fruitless is how many children in a row may die before they serve.
	fruitless = 5
	// successorPause is how long a successor waits for each that failed before it.
	successorPause = 100 * time.Millisecond
	// askedFor is how long after a signal a child that dies is taken to have done what the signal asked for.
	askedFor = 10 * time.Second
	// handedOver is the number of descriptors that a successor gets behind its socket.
	handedOver = 2
)

// keeper holds what a mount needs to outlive the process that serves it.
type keeper struct {
	config *mountConfig
	args   []string
	// started is the directory in which the command was given.
	started string
	log     *slog.Logger

	// mu guards what follows: it is used by the goroutines that listen to the child and for signals.
	mu    sync.Mutex
	child *os.Process
	// files are the device and the state, none before the mount was made.
	files []*os.File
	// asked is when a signal asked for the end the last time.
	asked time.Time
	// pending is a signal that came between two children.
	pending os.Signal
}

// keep starts the child that mounts and serves, and its successors, until the mount has ended. ready is the pipe
// down which a background child reports, nil in the foreground.
func keep(c *mountConfig, started string, args []string, log *slog.Logger, ready *os.File) error {
	k := &keeper{config: c, args: args, started: started, log: log}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	end := make(chan struct{})
	var passing sync.WaitGroup
	passing.Go(func() { k.pass(signals, end) })
	defer func() {
		signal.Stop(signals)
		close(end)
		passing.Wait()
		if ready != nil {
			_ = ready.Close()
		}
		for _, f := range k.files {
			_ = f.Close()
		}
	}()
	for failures := 0; ; {
		outcome, err := k.runChild(ready)
		if err != nil {
			return err
		}
		if outcome.ended {
			k.clear()
			return outcome.result()
		}
		if len(k.files) == 0 {
			k.clear()
			return outcome.result()
		}
		if failures++; outcome.served {
			failures = 0
		}
		if k.wasAsked() || failures >= fruitless {
			return k.giveUp(outcome)
		}
		time.Sleep(time.Duration(failures) * successorPause)
		log.Warn("the process that serves the mount died and is replaced", "dir", c.dir, "status", outcome.state.String())
	}
}

// pass hands signals on to the child. It has a process group of its own, so that Ctrl-C reaches it once.
func (k *keeper) pass(signals <-chan os.Signal, end <-chan struct{}) {
	for {
		select {
		case sig := <-signals:
			k.mu.Lock()
			k.asked = time.Now()
			if k.child != nil {
				_ = k.child.Signal(sig)
			} else {
				k.pending = sig
			}
			k.mu.Unlock()
		case <-end:
			return
		}
	}
}

func (k *keeper) wasAsked() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.asked) < askedFor
}

// outcome is how a child ended.
type outcome struct {
	state *os.ProcessState
	// served says that the mount answered under it, ended that it meant to end.
	served, ended bool
}

// result is the keeper's own end after a child that will have no successor.
func (o outcome) result() error {
	code := o.state.ExitCode()
	switch {
	case code == 0 && o.ended:
		return nil
	case o.ended:
		return &childError{code: code, told: true}
	}
	return &childError{code: commandline.ExitFailure, sentence: fmt.Sprintf("the process died before the mount was made (%s)", o.state)}
}

// clear takes away a mount that is left over: of a child that died right after mount(2), or that could not take
// the mount over.
func (k *keeper) clear() {
	for _, f := range k.files {
		_ = f.Close()
	}
	k.files = nil
	if err := clearMounts(withoutLinksAbove(k.config.dir), k.log); err != nil {
		k.log.Debug("a mount is left alone", "dir", k.config.dir, "error", err)
	}
}

// giveUp ends a mount that nobody serves any more.
func (k *keeper) giveUp(o outcome) error {
	if err := mountpoint.Unmount(k.config.dir, true); err != nil {
		k.log.Error("the mount could not be ended", "dir", k.config.dir, "error", err)
	}
	if k.wasAsked() {
		return nil
	}
	return &childError{code: commandline.ExitFailure, sentence: fmt.Sprintf("the process that serves the mount on %s died %d times in a row (%s), and the mount was ended", k.config.dir, fruitless, o.state)}
}

// runChild starts a child, listens to it, and waits for its end.
func (k *keeper) runChild(ready *os.File) (outcome, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return outcome{}, fmt.Errorf("making a socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "the child's end")
	ours, err := unixConn(pair[0])
	if err != nil {
		_ = theirs.Close()
		return outcome{}, err
	}
	defer func() { _ = ours.Close() }()
	//nolint:noctx // its end is waited for; a deadline would end the mount
	cmd := exec.Command("/proc/self/exe", k.args[1:]...)
	cmd.Args[0] = k.args[0]
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=3+%d+%s", keeperVar, len(k.files), k.started))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = append([]*os.File{theirs}, k.files...)
	if ready != nil {
		cmd.Env = append(cmd.Env, readyVar+"="+strconv.Itoa(3+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, ready)
	}
	k.mu.Lock()
	err = cmd.Start()
	k.child = cmd.Process
	if err == nil && k.pending != nil {
		_ = k.child.Signal(k.pending)
		k.pending = nil
	}
	k.mu.Unlock()
	_ = theirs.Close()
	if err != nil {
		return outcome{}, fmt.Errorf("the serving process could not be started: %w", err)
	}
	var o outcome
	o.served, o.ended = k.listen(ours)
	_ = cmd.Wait()
	k.mu.Lock()
	k.child = nil
	k.mu.Unlock()
	o.state = cmd.ProcessState
	return o, nil
}

// listen takes what the child says until its end.
func (k *keeper) listen(c *net.UnixConn) (served, ended bool) {
	for {
		said, files, err := hear(c)
		if err != nil {
			return served, ended
		}
		switch said {
		case sayKept:
			served = true
			k.files = files
		case sayServing:
			served = true
		case sayEnded:
			ended = true
		}
	}
}

// hear receives one byte and the descriptors with it. It fails at the child's end.
func hear(c *net.UnixConn) (said byte, files []*os.File, err error) {
	var text [1]byte
	control := make([]byte, unix.CmsgSpace(4*handedOver))
	n, controlled, _, _, err := c.ReadMsgUnix(text[:], control)
	if err != nil {
		return 0, nil, err
	}
	if n == 0 {
		return 0, nil, io.EOF
	}
	files, err = handover.FilesIn(control[:controlled])
	return text[0], files, err
}

// unixConn makes a connection of a descriptor, which it takes.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "keeper")
	defer func() { _ = file.Close() }()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("the keeper's socket: %w", err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("the keeper's socket is no unix socket")
	}
	return u, nil
}

// kept is the child's side: its way to the keeper, and what an earlier child left with it.
type kept struct {
	conn *net.UnixConn
	// started is the directory in which the command was given.
	started string
	// device and state are nil in the first child.
	device, state *os.File
}

// openKept takes over what the keeper passed; nil where there is no keeper.
func openKept() (*kept, error) {
	text := os.Getenv(keeperVar)
	if text == "" {
		return nil, nil
	}
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("$%s is %q: it is set by millrace for itself", keeperVar, text)
	}
	fd, err := strconv.Atoi(parts[0])
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("$%s is %q: it is set by millrace for itself", keeperVar, text)
	}
	_ = os.Unsetenv(keeperVar)
	k := &kept{started: parts[2]}
	if parts[1] == strconv.Itoa(handedOver) {
		unix.CloseOnExec(fd + 1)
		unix.CloseOnExec(fd + 2)
		k.device, k.state = os.NewFile(uintptr(fd+1), "/dev/fuse"), os.NewFile(uintptr(fd+2), "state")
	}
	k.conn, err = unixConn(fd)
	return k, err
}

// startedIn is the directory in which the command was given, "" where this is the process that was.
func (k *kept) startedIn() string {
	if k == nil {
		return ""
	}
	return k.started
}

// resumes tells whether another child served the mount before.
func (k *kept) resumes() bool { return k != nil && k.device != nil }

// say tells the keeper something. A keeper that has gone is no reason to end.
func (k *kept) say(what byte, files ...*os.File) {
	if k == nil {
		return
	}
	var control []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		control = unix.UnixRights(fds...)
	}
	_ = k.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _, _ = k.conn.WriteMsgUnix([]byte{what}, control, nil)
}
