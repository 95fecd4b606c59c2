package keeper

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/deaths"
	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// fruitless is how many children in a row may die before they serve.
	fruitless = 5
	// askedFor is how long after a signal a child that dies is taken to have done what the signal asked for.
	askedFor = 10 * time.Second
)

// keeper holds what a mount needs to outlive the process that serves it.
type keeper struct {
	order *Order
	log   *slog.Logger
	// files are the device and the state, none before the mount was made. Only the goroutine of Keep uses them.
	files []*os.File

	// asking has a token when a signal came.
	asking chan struct{}

	// mu guards the rest, which the goroutine that passes signals on uses too.
	mu    sync.Mutex
	child *os.Process
	// asked is when a signal asked for the end the last time.
	asked time.Time
	// pending is a signal that came between two children.
	pending os.Signal
}

// Keep starts the child that mounts and serves, and its successors, until the mount has ended. An error that is an
// [*EndedError] is the child's own end.
func Keep(o *Order, log *slog.Logger) error {
	k := &keeper{order: o, log: log, asking: make(chan struct{}, 1)}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	end := make(chan struct{})
	var passing sync.WaitGroup
	passing.Go(func() { k.pass(signals, end) })
	defer func() {
		signal.Stop(signals)
		close(end)
		passing.Wait()
		if o.Ready != nil {
			_ = o.Ready.Close()
		}
		for _, f := range k.files {
			_ = f.Close()
		}
	}()
	var died []time.Time
	for failures := 0; ; {
		outcome, err := k.runChild()
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
		// Whatever it served: one that dies over each request would be replaced for ever.
		died = deaths.Recent(died, time.Now())
		pause := deaths.Pause(died, time.Now())
		log.Warn("the process that serves the mount died and is replaced",
			"dir", o.Dir, "status", outcome.state.String(), "deaths", len(died), "pause", pause)
		k.rest(pause)
		if k.wasAsked() {
			return k.giveUp(outcome)
		}
	}
}

// rest waits before the next child is started, or until a signal asks for the end.
func (k *keeper) rest(pause time.Duration) {
	select {
	case <-k.asking:
		// Of a signal that a child has answered.
	default:
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-k.asking:
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
			select {
			case k.asking <- struct{}{}:
			default:
			}
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
		return &EndedError{Code: code, Told: true}
	}
	return &EndedError{Code: 1, Sentence: fmt.Sprintf("the process died before the mount was made (%s)", o.state)}
}

// clear takes away a mount that is left over: of a child that died right after mount(2), or that could not take
// the mount over.
func (k *keeper) clear() {
	for _, f := range k.files {
		_ = f.Close()
	}
	k.files = nil
	if err := mountpoint.Clear(mountpoint.WithoutLinksAbove(k.order.Dir), k.log); err != nil {
		k.log.Debug("a mount is left alone", "dir", k.order.Dir, "error", err)
	}
}

// giveUp ends a mount that no process serves any more.
func (k *keeper) giveUp(o outcome) error {
	if err := mountpoint.Unmount(k.order.Dir, true); err != nil {
		k.log.Error("the mount could not be ended", "dir", k.order.Dir, "error", err)
	}
	if k.wasAsked() {
		return nil
	}
	return &EndedError{
		Code: 1,
		Sentence: fmt.Sprintf("the process that serves the mount on %s died %d times in a row (%s), and the mount was "+
			"ended", k.order.Dir, fruitless, o.state),
	}
}

// runChild starts a child, listens to it, and waits for its end.
func (k *keeper) runChild() (outcome, error) {
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
	cmd := k.order.command(len(k.files))
	cmd.ExtraFiles = append([]*os.File{theirs}, k.files...)
	if k.order.Ready != nil {
		cmd.Env = append(cmd.Env, readyVar+"="+strconv.Itoa(3+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, k.order.Ready)
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
