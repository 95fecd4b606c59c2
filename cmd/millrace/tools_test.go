package main

import (
	"context"
	byteorder "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/fuse/socket"
	"millrace.io/millrace/sanity/pace"
)

// serveHere mounts the rig's source from this process and answers for it on a socket, which is returned. The commands
// ask it as they ask any other.
func (r *rig) serveHere() string {
	t := r.t
	t.Helper()
	if !mountpoint.HasSysAdmin() {
		t.Skip("needs root: mount(2)")
	}
	store, err := ufs.Open(t.Context(), r.source, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := embedded.New(store, embedded.Config{Levels: []embedded.LevelConfig{{Dir: r.tier, Quota: 64 << 20}}})
	if err != nil {
		t.Fatal(err)
	}
	session, err := fuse.Mount(t.Context(), fuse.Config{Client: cache, Dir: r.dir})
	if err != nil {
		t.Fatal(err)
	}
	server := agent.New(slog.New(slog.DiscardHandler))
	if err := server.Add(agent.Mount{
		Dir: r.dir, Name: "here", Source: r.source, Started: time.Now(), Client: cache,
		Stats: session.Stats, Trace: session.Trace, Slowest: session.Slowest, Unmount: session.Unmount,
	}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.base, "here.sock")
	l, err := socket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := session.Unmount(true); err != nil {
			t.Error(err)
		}
		_ = cache.Close()
		_ = store.Close()
	})
	return path
}

// traffic reads a file of the mount again and again, in other processes, until the test ends or stop is called.
func (r *rig) traffic(name string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = exec.CommandContext(ctx, "cat", filepath.Join(r.dir, name)).Run()
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	return stop
}

func TestTraceCommand(t *testing.T) {
	r := newRig(t)
	r.write("d/a b", 3<<20)
	path := r.serveHere()
	defer r.traffic("d/a b")()
	res := r.ok("trace", "--socket", path, "--op", "open,read", "-n", "5")
	line := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{6}  (open|read) +[0-9.]+(ns|µs|ms|s)  +(-|source|cache|passthrough) +` + regexp.QuoteMeta(r.dir+"/d/a b"))
	lines := strings.Split(strings.TrimSpace(res.out), "\n")
	if len(lines) != 5 {
		t.Errorf("%d lines: %q", len(lines), res.out)
	}
	for _, l := range lines {
		if !line.MatchString(l) {
			t.Errorf("line %q", l)
		}
	}
	res = r.ok("trace", "--socket", path, "-o", "json", "-n", "2", "--op", "open", r.dir+"/d")
	events := json.NewDecoder(strings.NewReader(res.out))
	for range 2 {
		var e agent.TraceEvent
		if err := events.Decode(&e); err != nil || e.Op != "open" || e.Path != r.dir+"/d/a b" || e.Mount != r.dir {
			t.Errorf("%+v, %v", e, err)
		}
	}
	r.refused(1, []string{`"raed"`, "read"}, "trace", "--socket", path, "--op", "raed")
	r.refused(1, []string{"in no mount"}, "trace", "--socket", path, "/etc")
	r.refused(1, []string{"no mount to trace"}, "trace")
	r.refused(2, []string{"--slower"}, "trace", "--slower", "fast")
}

func TestTraceEndsAtCtrlC(t *testing.T) {
	r := newRig(t)
	r.write("a", 10)
	path := r.serveHere()
	defer r.traffic("a")()
	out := &lockedBuffer{}
	cmd := r.command(t.Context(), "trace", "--socket", path)
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "an event", func() bool { return strings.Contains(out.String(), "\n") })
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v", err)
	}
}

// TestTraceEndsWithItsReader: it says that it follows, and ends when nothing reads it any more though it has nothing to
// write.
func TestTraceEndsWithItsReader(t *testing.T) {
	r := newRig(t)
	r.write("a", 10)
	path := r.serveHere()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	said := &lockedBuffer{}
	cmd := r.command(t.Context(), "trace", "--socket", path, r.dir)
	cmd.Stdout, cmd.Stderr = write, said
	if err := errors.Join(cmd.Start(), write.Close()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "that it follows", func() bool {
		return strings.Contains(said.String(), "following the requests of "+r.dir)
	})
	_ = read.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(pace.Limit(20 * time.Second)):
		_ = cmd.Process.Kill()
		t.Errorf("it goes on without a reader: %v", <-ended)
	}
}

func TestTopPlainAndJSON(t *testing.T) {
	r := newRig(t)
	r.write("a", 3<<20)
	path := r.serveHere()
	defer r.traffic("a")()
	res := r.ok("top", "--socket", path, "-n", "2", "--interval", "300ms")
	if strings.Count(res.out, "1 mount\n") != 2 || strings.Count(res.out, "PASSTHROUGH") != 2 ||
		!strings.Contains(res.out, r.dir+" ") || strings.Contains(res.out, "\x1b") {
		t.Errorf("got %q", res.out)
	}
	res = r.ok("top", "--socket", path, "-n", "2", "--interval", "1s", "-o", "json")
	frames := json.NewDecoder(strings.NewReader(res.out))
	for range 2 {
		var f topFrame
		if err := frames.Decode(&f); err != nil || len(f.Mounts) != 1 || f.Mounts[0].Dir != r.dir ||
			f.Mounts[0].Ops <= 0 || f.Seconds <= 0 || f.Slowest == nil {
			t.Errorf("%+v, %v", f, err)
		}
	}
	if res := r.ok("top", "-n", "1", "--interval", "10ms"); !strings.Contains(res.out, "0 mounts") {
		t.Errorf("without mounts: %q", res.out)
	}
	r.refused(1, []string{"none.sock"}, "top", "--socket", "/none.sock", "-n", "1")
	r.refused(2, []string{"--interval"}, "top", "--interval", "0")
}

// On a terminal it is drawn in place, ends with q, and leaves the terminal as it was.
func TestTopOnATerminal(t *testing.T) {
	r := newRig(t)
	r.write("a", 1000)
	path := r.serveHere()
	for _, end := range []string{"q", "\x03", "signal"} {
		screen, tty := terminal(t, 60)
		before, err := term.GetState(int(tty.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		cmd := r.command(t.Context(), "top", "--socket", path, "--interval", "100ms")
		cmd.Env = append(cmd.Env, "TERM=xterm")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		shown := &lockedBuffer{}
		copied := make(chan struct{})
		go func() {
			defer close(copied)
			_, _ = io.Copy(shown, screen) // EIO once the other side is closed
		}()
		waitFor(t, "a drawing", func() bool { return strings.Contains(shown.String(), "PASSTHROUGH") })
		drawn := len(shown.String())
		if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 50}); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Signal(unix.SIGWINCH)
		waitFor(t, "a drawing on the new size", func() bool {
			return strings.Contains(shown.String()[drawn:],
				"MOUNT")
		})
		if end == "signal" {
			_ = cmd.Process.Signal(unix.SIGTERM)
		} else if _, err := io.WriteString(screen, end); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%q: %v: %q", end, err, shown)
		}
		after, err := term.GetState(int(tty.Fd()))
		if err != nil || fmt.Sprintf("%+v", *after) != fmt.Sprintf("%+v", *before) {
			t.Errorf("%q: the terminal is not what it was (%v)", end, err)
		}
		_ = tty.Close()
		<-copied
		// The alternate screen (xterm's 1049) leaves what was there untouched.
		_, after1049, entered := strings.Cut(shown.String(), "\x1b[?1049h")
		_, afterwards, left := strings.Cut(after1049, "\x1b[?1049l")
		if !entered || !left || strings.Contains(afterwards, "PASSTHROUGH") ||
			!strings.Contains(after1049+afterwards, "\x1b[?25h") {
			t.Errorf("%q: got %q", end, shown)
		}
	}
}

func TestBlocksCommand(t *testing.T) {
	r := newRig(t)
	r.write("a", 3<<20)
	r.mountBackground(r.source)
	before := r.ok("blocks", filepath.Join(r.dir, "a")).out
	if !strings.Contains(before, "0       3145728  the source only") ||
		!strings.Contains(before, "0 B of 3.0 MiB cached (0.0%)") {
		t.Errorf("before: %q", before)
	}
	r.ok("warm", filepath.Join(r.dir, "a"))
	after := r.ok("blocks", filepath.Join(r.dir, "a")).out
	if !strings.Contains(after, r.tier) || !strings.Contains(after, "3.0 MiB of 3.0 MiB cached (100.0%)") {
		t.Errorf("after: %q", after)
	}
	var blocks []cacheclient.Block
	if err := json.Unmarshal([]byte(r.ok("blocks", "-o", "json", filepath.Join(r.dir, "a")).out),
		&blocks); err != nil || len(blocks) != 1 || len(blocks[0].Where) != 1 {
		t.Errorf("%+v, %v", blocks, err)
	}
	bySocket := r.ok("blocks", "--socket", r.status(r.dir).Socket, "a").out
	if bySocket != after {
		t.Errorf("by the socket: %q", bySocket)
	}
	r.refused(1, []string{"nope"}, "blocks", filepath.Join(r.dir, "nope"))
	r.refused(2, []string{"one PATH"}, "blocks")
	r.ok("unmount", r.dir)
}

func TestWarmAsJSON(t *testing.T) {
	r := newRig(t)
	r.write("a", 1<<20)
	r.mountBackground(r.source)
	lines := strings.Split(strings.TrimSpace(r.ok("warm", "-o", "json", r.dir).out), "\n")
	var last agent.WarmProgress
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || !last.Done || last.BytesDone != 1<<20 {
		t.Errorf("%q, %v", lines, err)
	}
	r.ok("unmount", r.dir)
}

func TestStatusBySocket(t *testing.T) {
	r := newRig(t)
	r.write("a", 10)
	path := r.serveHere()
	var mounts []agent.MountStatus
	if err := json.Unmarshal([]byte(r.ok("status", "-o", "json", "--socket", path).out), &mounts); err != nil ||
		len(mounts) != 1 || mounts[0].Dir != r.dir ||
		mounts[0].Condition == nil || mounts[0].Condition.Abnormal {
		t.Errorf("%+v, %v", mounts, err)
	}
	if text := r.ok("status", "-o", "text", "--socket", path).out; !strings.Contains(text, r.dir) {
		t.Errorf("got %q", text)
	}
	r.refused(1, []string{"none.sock"}, "status", "--socket", "/none.sock")
}

// doctor runs the command, which looks at the whole machine, and keeps what it says of the rig.
func (r *rig) doctor(args ...string) (findings []finding, res result) {
	r.t.Helper()
	res = r.run(append([]string{"doctor", "-o", "json", "--tier-dir", r.tier}, args...)...)
	if err := json.Unmarshal([]byte(res.out), &findings); err != nil {
		r.t.Fatalf("%q %q: %v", res.out, res.errOut, err)
	}
	return findings, res
}

func TestDoctorLooksAtMounts(t *testing.T) {
	r := newRig(t)
	r.write("a", 10)
	r.mountBackground(r.source)
	findings, _ := r.doctor()
	checks := map[string]bool{}
	for _, f := range findings {
		checks[f.Check] = true
		if strings.Contains(f.Found, r.dir) && f.Result != verdictOK && !strings.Contains(f.Found, "ahead") {
			t.Errorf("a mount that is well: %+v", f)
		}
		if (f.Result == verdictOK) != (f.Mend == "") {
			t.Errorf("%+v: what is not ok, and only that, has something to mend it", f)
		}
	}
	for _, want := range []string{
		"kernel", "/dev/fuse", "fusermount3", "CAP_SYS_ADMIN", "seccomp", "open files",
		"request size", "fusectl", "updatedb", "tier directory", "sockets",
	} {
		if !checks[want] {
			t.Errorf("no check %q", want)
		}
	}
	if text := r.run("doctor", "--tier-dir", r.tier); !strings.Contains(text.out, "ok    /dev/fuse") {
		t.Errorf("got %q", text.out)
	}
	r.killAll()
	findings, res := r.doctor()
	dead := false
	for _, f := range findings {
		dead = dead || f.Check == "mount" && f.Result == verdictFail && strings.Contains(f.Found, r.dir+" is dead") &&
			f.Mend == "millrace unmount "+r.dir
	}
	if !dead || res.code != 1 || !strings.Contains(res.errOut, "checks failed") {
		t.Errorf("exit %d, %s: %+v", res.code, res.errOut, findings)
	}
	r.ok("unmount", r.dir)
}

// A mount that hangs is told, and does not have the doctor hang: neither one that is not served yet, nor one whose
// server has taken the question and does not answer, for which no signal helps.
func TestDoctorDoesNotHang(t *testing.T) {
	for _, serve := range []struct {
		name string
		with func(*testing.T, *os.File)
	}{{"not served", func(*testing.T, *os.File) {}}, {"stuck", stuckServer}} {
		t.Run(serve.name, func(t *testing.T) {
			r := newRig(t)
			if !mountpoint.HasSysAdmin() {
				t.Skip("needs root: mount(2)")
			}
			device, err := mountpoint.Attach(t.Context(), mountpoint.Options{Dir: r.dir, Source: "silent"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = device.Close() })
			serve.with(t, device)
			t.Cleanup(func() { _ = mountpoint.Detach(r.dir, mountpoint.Abruptly) })
			begun := time.Now()
			findings, res := r.doctor()
			told := false
			for _, f := range findings {
				told = told || f.Result == verdictFail && strings.Contains(f.Found, r.dir+" does not answer") &&
					strings.Contains(f.Mend, "--force")
			}
			if !told || res.code != 1 || time.Since(begun) > pace.Limit(20*time.Second) {
				t.Errorf("exit %d after %v: %+v", res.code, time.Since(begun), findings)
			}
		})
	}
}

// stuckServer answers INIT, reads what comes next, and answers nothing until the connection ends.
func stuckServer(t *testing.T, device *os.File) {
	t.Helper()
	buf := make([]byte, 1<<16)
	if _, err := unix.Read(int(device.Fd()), buf); err != nil {
		t.Fatal(err)
	}
	// struct fuse_out_header and struct fuse_init_out of FUSE 7.31.
	reply := make([]byte, 16+64)
	byteorder.LittleEndian.PutUint32(reply, uint32(len(reply)))
	copy(reply[8:16], buf[8:16])
	byteorder.LittleEndian.PutUint32(reply[16:], 7)
	byteorder.LittleEndian.PutUint32(reply[20:], 31)
	byteorder.LittleEndian.PutUint32(reply[36:], 4096)
	if _, err := unix.Write(int(device.Fd()), reply); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := unix.Read(int(device.Fd()), buf); err != nil {
				return
			}
		}
	}()
	// The mount is detached abruptly before this.
	t.Cleanup(func() { <-ended })
}

func TestVersionFormats(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		if out := said(t, "version", "-o", format); (out[0] == '{') != (format == "json") {
			t.Errorf("%s: %q", format, out)
		}
	}
}
