package fuse

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIsDying(t *testing.T) {
	const head = "Name:\tcat\nState:\tD (disk sleep)\n"
	masks := func(pending, shared, blocked, ignored, caught string) string {
		return head + "SigPnd:\t" + pending + "\nShdPnd:\t" + shared + "\nSigBlk:\t" + blocked +
			"\nSigIgn:\t" + ignored + "\nSigCgt:\t" + caught + "\n"
	}
	const none, alarm, kill = "0000000000000000", "0000000000002000", "0000000000000100"
	const quit, child = "0000000000000004", "0000000000010000"
	for name, c := range map[string]struct {
		status string
		want   bool
	}{
		"nothing is pending":      {masks(none, none, none, none, none), false},
		"a timer with a handler":  {masks(none, alarm, none, none, alarm), false},
		"a timer without one":     {masks(none, alarm, none, none, none), true},
		"a timer that is blocked": {masks(none, alarm, alarm, none, none), false},
		"a timer that is ignored": {masks(alarm, none, none, alarm, none), false},
		"a child's end":           {masks(none, child, none, none, none), false},
		"killed":                  {masks(kill, none, none, none, alarm), true},
		"killed, of the process":  {masks(none, kill, none, none, none), true},
		"to quit":                 {masks(none, quit, none, none, none), true},
		"a zombie":                {"Name:\tx\nState:\tZ (zombie)\n", true},
		"nothing is told":         {"", false},
		"no numbers":              {masks("x", "y", "z", "", "-1"), false},
	} {
		if got := isDying(c.status); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if callerDying(uint32(os.Getpid())) {
		t.Error("this process is taken for one that is dying")
	}
	if callerDying(0) {
		t.Error("a caller of another namespace is taken for one that is dying")
	}
	if !callerDying(1 << 30) {
		t.Error("a thread that is not there is not dying")
	}
}

// TestHiddenCallersLive: a /proc that hides a process, or is of another namespace, says nothing about it.
func TestHiddenCallersLive(t *testing.T) {
	was := readStatus
	defer func() { readStatus = was }()
	readStatus = func(uint32) ([]byte, error) { return nil, os.ErrNotExist }
	if callerDying(uint32(os.Getppid())) {
		t.Error("a process that /proc hides is taken for one that is dying")
	}
	if !procIsOwn("/proc") {
		t.Error("this process's /proc is taken for another namespace's")
	}
	other := t.TempDir()
	if err := os.Symlink(strconv.Itoa(os.Getpid()+1), filepath.Join(other, "self")); err != nil {
		t.Fatal(err)
	}
	if procIsOwn(other) || procIsOwn(t.TempDir()) {
		t.Error("another namespace's /proc is taken for this process's")
	}
}

// TestInterruptsAreCounted: a second INTERRUPT ends what the first did not, and a dying caller waits for none.
func TestInterruptsAreCounted(t *testing.T) {
	f := newInflight(t.Context(), time.Hour)
	var dying sync.Map
	f.dying = func(caller uint32) bool { _, ok := dying.Load(caller); return ok }
	alive, dead := f.begin(inHeader{op: opOpen, unique: 2, caller: 7}),
		f.begin(inHeader{op: opOpen, unique: 4, caller: 8})
	dying.Store(uint32(8), true)
	if f.interrupt(6) {
		t.Error("a request is known that never came")
	}
	if !f.interrupt(2) || alive.ctx.Err() != nil || f.gaveUp(alive) {
		t.Error("one INTERRUPT ended a request whose caller lives")
	}
	if !f.interrupt(4) || dead.ctx.Err() == nil || !f.gaveUp(dead) {
		t.Error("a dying caller's request goes on")
	}
	if !f.interrupt(2) || alive.ctx.Err() == nil || !f.gaveUp(alive) {
		t.Error("a second INTERRUPT did not end the request")
	}
	late := f.begin(inHeader{op: opOpen, unique: 8, caller: 9})
	f.interrupt(8)
	dying.Store(uint32(9), true)
	<-late.ctx.Done()
	if !f.gaveUp(late) {
		t.Error("the caller died after its INTERRUPT, and the request was not given up")
	}
	f.watching.Wait()
}

// stubborn blocks the client's Stat and Open until release, or until they are given up.
func stubborn(client *localClient) (release func()) {
	gate := make(chan struct{})
	wait := func(ctx context.Context, _ string) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gate:
			return nil
		}
	}
	client.mu.Lock()
	client.onStat, client.onOpen = wait, wait
	client.mu.Unlock()
	return sync.OnceFunc(func() { close(gate) })
}

// underSignals calls ask on a thread of its own that gets a signal with a handler every few milliseconds. When the
// kernel has interrupted a request for it, interrupted is called.
func underSignals(t *testing.T, s *Session, ask func() error, interrupted func()) error {
	t.Helper()
	before := s.Stats().Interrupts
	thread, ended := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		ended <- ask()
	}()
	tid, told := <-thread, false
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(2 * time.Millisecond):
			// The runtime sends it to its own threads all the time, with SA_RESTART.
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
		if !told && s.Stats().Interrupts > before {
			told = true
			interrupted()
		}
	}
}

// TestSignalsDoNotInterrupt: a signal that its program handles changes nothing for open(2), stat(2), access(2) and
// readdir(2), however slow the source is.
func TestSignalsDoNotInterrupt(t *testing.T) {
	source := t.TempDir()
	for _, name := range []string{"open", "stat", "access", "dir/x"} {
		write(t, source, name, pattern(100))
	}
	client := newLocalClient(source)
	s, dir := mountLocal(t, client, nil)
	for name, ask := range map[string]func(path string) error{
		"open": func(path string) error {
			fd, err := unix.Open(path, unix.O_RDONLY, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		},
		"stat":   func(path string) error { return unix.Stat(path, &unix.Stat_t{}) },
		"access": func(path string) error { return unix.Access(path, unix.R_OK) },
		"dir":    func(path string) error { return unix.Stat(path+"/x", &unix.Stat_t{}) },
	} {
		release := stubborn(client)
		err := underSignals(t, s, func() error { return ask(filepath.Join(dir, name)) }, release)
		release()
		if err != nil {
			t.Errorf("%s under a timer: %v", name, err)
		}
	}
}

// TestInterruptPatience: a program that handles its signals and waits for them is let go after a while.
func TestInterruptPatience(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(100))
	client := newLocalClient(source)
	s, dir := mountLocal(t, client, func(c *Config) { c.interruptPatience = 100 * time.Millisecond })
	release := stubborn(client)
	defer release()
	err := underSignals(t, s, func() error { return unix.Stat(filepath.Join(dir, "f"), &unix.Stat_t{}) }, func() {})
	if !errors.Is(err, unix.EINTR) {
		t.Errorf("stat(2) after an interrupt that nobody answers: %v", err)
	}
}

// TestOnlyInterruptsAreEINTR: what the client gives up for reasons of its own is an I/O error.
func TestOnlyInterruptsAreEINTR(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(100))
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, nil)
	client.mu.Lock()
	client.onStat = func(context.Context, string) error { return context.Canceled }
	client.mu.Unlock()
	if err := unix.Stat(filepath.Join(dir, "g"), &unix.Stat_t{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("stat(2): %v", err)
	}
	client.mu.Lock()
	client.onStat = nil
	client.onRead = func(context.Context, string, int64, int) error { return context.Canceled }
	client.mu.Unlock()
	if _, err := os.ReadFile(filepath.Join(dir, "f")); !errors.Is(err, syscall.EIO) {
		t.Errorf("read(2): %v", err)
	}
}
