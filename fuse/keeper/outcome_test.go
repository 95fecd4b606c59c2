package keeper

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a keeper's end and a child's.
func pair(t *testing.T) (ours *net.UnixConn, theirs *Child) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, err = unixConn(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	conn, err := unixConn(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	return ours, &Child{conn: conn}
}

// TestWhatAChildSays: the keeper knows of a child whether it served and whether it meant to end, and has the
// descriptors that a successor needs.
func TestWhatAChildSays(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for name, tc := range map[string]struct {
		says          func(*Child)
		served, ended bool
		files         int
	}{
		"it dies at once":        {func(*Child) {}, false, false, 0},
		"it mounts and dies":     {func(c *Child) { c.Kept(null, null) }, true, false, handedOver},
		"it takes over and dies": {(*Child).Serving, true, false, 0},
		"it cannot mount":        {(*Child).Ended, false, true, 0},
		"it is asked to end":     {func(c *Child) { c.Kept(null, null); c.Ended() }, true, true, handedOver},
		"of a later build":       {func(c *Child) { c.say('?'); c.Serving() }, true, false, 0},
		"it says it all at once": {
			func(c *Child) { c.Serving(); c.Kept(null, null); c.Serving(); c.Ended() }, true, true, handedOver,
		},
	} {
		ours, child := pair(t)
		tc.says(child)
		_ = child.conn.Close()
		k := &keeper{}
		served, ended := k.listen(ours)
		if served != tc.served || ended != tc.ended || len(k.files) != tc.files {
			t.Errorf("%s: served %v, ended %v, %d files", name, served, ended, len(k.files))
		}
		for _, f := range k.files {
			if st, err := f.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
				t.Errorf("%s: what it passed is not what it had: %v", name, err)
			}
			_ = f.Close()
		}
	}
}

// TestChildWithoutAKeeper: a process that no keeper started says nothing, and resumes nothing.
func TestChildWithoutAKeeper(t *testing.T) {
	t.Setenv(childVar, "")
	child, err := Open()
	if child != nil || err != nil {
		t.Fatalf("%v, %v", child, err)
	}
	child.Kept(nil, nil)
	child.Serving()
	child.Ended()
	if child.Resumes() || child.StartedIn() != "" {
		t.Error("it resumes something")
	}
	// A keeper that has gone is no reason to end.
	ours, child := pair(t)
	_ = ours.Close()
	child.Serving()
}

// ended is the state of a process that has ended by a shell's command.
func ended(t *testing.T, command string) *os.ProcessState {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState
}

// TestResult: the keeper ends as the child that meant to end did; of one that died before there was a mount it says so.
func TestResult(t *testing.T) {
	for name, tc := range map[string]struct {
		command string
		ended   bool
		code    int
		told    bool
		says    string
	}{
		"meant, well":  {"exit 0", true, 0, false, ""},
		"meant, badly": {"exit 7", true, 7, true, ""},
		"died":         {"exit 7", false, 1, false, "before the mount was made (exit status 7)"},
		"died, well":   {"exit 0", false, 1, false, "before the mount was made"},
		"killed":       {"kill -9 $$", false, 1, false, "before the mount was made (signal: killed)"},
	} {
		err := outcome{state: ended(t, tc.command), ended: tc.ended}.result()
		var end *EndedError
		if !errors.As(err, &end) {
			if tc.code != 0 || err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if end.Code != tc.code || end.Told != tc.told || !strings.Contains(end.Sentence, tc.says) {
			t.Errorf("%s: %+v", name, end)
		}
	}
}

// TestAsked: a child that dies soon after a signal has done what the signal asked for; one that dies long after it has
// not.
func TestAsked(t *testing.T) {
	for ago, asked := range map[time.Duration]bool{
		time.Second: true, askedFor + time.Second: false,
	} {
		k := &keeper{asked: time.Now().Add(-ago)}
		if k.wasAsked() != asked {
			t.Errorf("asked %v ago: %v", ago, k.wasAsked())
		}
		k.order, k.log = &Order{Dir: t.TempDir()}, slog.New(slog.DiscardHandler)
		err := k.giveUp(outcome{state: ended(t, "exit 3")})
		var end *EndedError
		if asked != (err == nil) || !asked && (!errors.As(err, &end) || end.Code != 1 ||
			!strings.Contains(end.Sentence, "died 5 times in a row (exit status 3)")) {
			t.Errorf("asked %v ago, it ends with %v", ago, err)
		}
	}
}

// TestSignals: a signal reaches the child that is there, or waits for the next one.
func TestSignals(t *testing.T) {
	k := &keeper{asking: make(chan struct{}, 1)}
	signals, end := make(chan os.Signal), make(chan struct{})
	passed := make(chan struct{})
	go func() {
		k.pass(signals, end)
		close(passed)
	}()
	signals <- unix.SIGTERM
	<-k.asking
	k.mu.Lock()
	if k.pending != unix.SIGTERM || k.asked.IsZero() {
		t.Errorf("pending is %v, asked at %v", k.pending, k.asked)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do read x; done")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Fatal(err)
	}
	k.child, k.pending = cmd.Process, nil
	k.mu.Unlock()
	signals <- unix.SIGTERM
	close(end)
	<-passed
	if k.pending != nil {
		t.Errorf("pending is %v although there is a child", k.pending)
	}
	_ = in.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("the child ended with %d: %v", code, cmd.ProcessState)
	}
}

// TestEnvironmentOfAMount: what millrace tells itself by its environment is read once, and anything else there is
// refused by the variable's name.
func TestEnvironmentOfAMount(t *testing.T) {
	for name, tc := range map[string]struct {
		variable, value string
		read            func() error
		refused         bool
	}{
		"no order":        {orderVar, "", func() error { o, err := Ordered(); return given(o != nil, err) }, false},
		"no JSON":         {orderVar, "{", func() error { _, err := Ordered(); return err }, true},
		"no pipe":         {readyVar, "", func() error { p, err := ReadyPipe(); return given(p != nil, err) }, false},
		"no number":       {readyVar, "x", func() error { _, err := ReadyPipe(); return err }, true},
		"an output":       {readyVar, "1", func() error { _, err := ReadyPipe(); return err }, true},
		"no child":        {childVar, "", func() error { c, err := Open(); return given(c != nil, err) }, false},
		"half a child":    {childVar, "3+2", func() error { _, err := Open(); return err }, true},
		"a child's input": {childVar, "0+2+/", func() error { _, err := Open(); return err }, true},
	} {
		t.Setenv(tc.variable, tc.value)
		err := tc.read()
		if (err != nil) != tc.refused || err != nil && !strings.Contains(err.Error(), "$"+tc.variable) {
			t.Errorf("%s: %v", name, err)
		}
		t.Setenv(tc.variable, "")
	}
}

// given is an error where there is something that was not given.
func given(is bool, err error) error {
	if is {
		return errors.New("there is something")
	}
	return err
}

// TestCommandOfAChild: a child runs the program that gave the order under its own name. It is told how many descriptors
// follow and where the command was given.
func TestCommandOfAChild(t *testing.T) {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	o := &Order{Started: "/where+ever", Args: []string{"millrace", "mount", "a"}, Program: program}
	for _, passed := range []int{0, handedOver} {
		cmd := o.command(passed)
		last := cmd.Env[len(cmd.Env)-1]
		want := childVar + "=3+" + string(rune('0'+passed)) + "+/where+ever"
		if last != want || strings.Join(cmd.Args, " ") != "millrace mount a" || !cmd.SysProcAttr.Setpgid ||
			!strings.HasPrefix(cmd.Path, "/proc/self/fd/") {
			t.Errorf("%v with %q", cmd, last)
		}
	}
}
