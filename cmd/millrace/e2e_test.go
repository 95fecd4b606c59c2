package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/rootstat"
)

// fileServer serves the rig's source with Go's file server.
func (r *rig) fileServer() string {
	r.t.Helper()
	s := httptest.NewServer(http.FileServer(http.Dir(r.source)))
	r.t.Cleanup(s.Close)
	return s.URL + "/"
}

// silentServer accepts requests, counts them, and never answers.
func (r *rig) silentServer() (url string, asked *atomic.Int64) {
	r.t.Helper()
	end, asked := make(chan struct{}), &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		select {
		case <-end:
		case <-req.Context().Done():
		}
	}))
	r.t.Cleanup(func() {
		close(end)
		s.Close()
	})
	return s.URL + "/", asked
}

func TestForegroundUntilInterrupted(t *testing.T) {
	r := newRig(t)
	data := r.write("d/a b#%é.bin", 3<<20)
	for _, sig := range []os.Signal{os.Interrupt, unix.SIGTERM} {
		p := r.start(r.mountArgs(r.source)...)
		r.same("d/a b#%é.bin", data)
		p.signal(sig)
		if code := p.exit(); code != 0 {
			t.Errorf("%v: exit %d: %s", sig, code, p.err)
		}
		if left := append(r.mounts(), r.registered()...); len(left) > 0 {
			t.Errorf("%v: left %v", sig, left)
		}
	}
}

func TestBackgroundOverHTTP(t *testing.T) {
	r := newRig(t)
	data := r.write("d/big", 5<<20)
	url := r.fileServer()
	pid := r.mountBackground(url)
	r.same("d/big", data)
	st := r.status(r.dir)
	if st.Source != url || st.State != agent.StateServing || st.Capacity.Quota != 64<<20 ||
		st.Counters.BytesSource < 5<<20 {
		t.Errorf("status: %+v", st)
	}
	if table := r.ok("status"); !strings.Contains(table.out, r.dir+" ") || !strings.Contains(table.out, "5.0 MiB") {
		t.Errorf("table: %s", table.out)
	}
	if st, err := os.Stat(st.Socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st, err)
	}
	// Begun anew, it is as warm as before.
	r.ok("unmount", r.dir)
	r.ended(pid)
	r.mountBackground(url)
	r.same("d/big", data)
	if st := r.status(r.dir); st.Counters.BytesSource >= 5<<20 {
		t.Errorf("after a restart %d bytes came from the source", st.Counters.BytesSource)
	}
	r.ok("unmount", r.dir)
}

// ended fails unless the process has ended by now, be it that it is not reaped.
func (r *rig) ended(pid int) {
	r.t.Helper()
	if ended, err := processEnded(pid, 0); err != nil || !ended {
		r.t.Errorf("process %d lives on (%v)", pid, err)
	}
}

func TestBackgroundReturnsAtOnce(t *testing.T) {
	limit := pace.Limit(300 * time.Millisecond)
	r := newRigAlone(t)
	r.write("a", 10)
	url := r.fileServer()
	best := time.Hour
	for range 10 {
		took := r.ok(r.mountArgs(url, "--background")...).took
		r.ok("unmount", r.dir)
		if best = min(best, took); best < limit || raceEnabled() {
			break
		}
	}
	t.Logf("mount --background took %v", best)
	// The machine may be busy: one round in ten is enough.
	if best >= limit && !raceEnabled() {
		t.Errorf("mount --background takes %v, want less than %v", best, limit)
	}
}

// A process that waits for the end of what its child printed, as sshd does, must not wait
// for the mount's end.
func TestBackgroundHoldsNothingOfItsStarter(t *testing.T) {
	r := newRig(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	cmd := r.command(context.Background(), r.mountArgs(r.source, "--background")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, write, write
	cmd.ExtraFiles = []*os.File{write, write, write}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	_ = read.SetReadDeadline(time.Now().Add(patience()))
	if n, err := read.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("the background process holds its starter's descriptors: %d, %v", n, err)
	}
	pid := r.status(r.dir).PID
	if sid, err := unix.Getsid(pid); err != nil || sid == pid || !slices.Contains(r.processes(), sid) {
		t.Errorf("session %d of process %d, whose leader is to be its keeper; %v", sid, pid, err)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
		t.Errorf("working directory %s, %v", cwd, err)
	}
	if in, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", pid)); err != nil || in != "/dev/null" {
		t.Errorf("stdin %s, %v", in, err)
	}
	r.ok("unmount", r.dir)
}

func TestRelativePaths(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 1000)
	in := func(args ...string) {
		t.Helper()
		cmd := r.command(t.Context(), args...)
		cmd.Dir = r.base
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("millrace %q: %v: %s", args, err, out)
		}
	}
	in("mount", "--background", "./src", "mnt", "--tier-dir", "tier", "--log-file", "l.log", "--socket", "s.sock")
	r.same("a", data)
	in("status", "mnt")
	in("warm", "mnt/a")
	for _, f := range []string{"l.log", "s.sock"} {
		if _, err := os.Stat(filepath.Join(r.base, f)); err != nil {
			t.Error(err)
		}
	}
	in("unmount", "./mnt/")
	if _, err := os.Stat(filepath.Join(r.base, "s.sock")); !os.IsNotExist(err) {
		t.Error("the socket is still there")
	}
}

func TestMountThroughSymbolicLinks(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 1000)
	link := filepath.Join(r.base, "link")
	if err := os.Symlink(r.dir, link); err != nil {
		t.Fatal(err)
	}
	r.ok("mount", "--background", "--tier-dir", r.tier, r.source, link)
	r.same("a", data)
	r.ok("status", link)
	r.ok("warm", filepath.Join(link, "a"))
	r.ok("unmount", link)
}

func TestBusyUnmountIsRefusedUnlessForced(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 1000)
	pid := r.mountBackground(r.source)
	holder, _ := r.hold("a")
	r.refused(1, []string{r.dir + " is in use by", fmt.Sprintf("%d sleep", holder), "--force"}, "unmount", r.dir)
	r.same("a", data)
	r.ok("unmount", "--force", r.dir)
	r.ended(pid)
}

func TestSecondInterruptForces(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 1000)
	p := r.start(r.mountArgs(r.source)...)
	holder, _ := r.hold("a")
	p.signal(os.Interrupt)
	waitFor(t, "the sentence", func() bool { return strings.Contains(p.err.String(), "Ctrl-C again") })
	if want := fmt.Sprintf("millrace: %s is in use by %d sleep", r.dir, holder); !strings.Contains(p.err.String(),
		want) {
		t.Errorf("got %s, want %q", p.err, want)
	}
	r.same("a", data)
	p.signal(os.Interrupt)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

func TestInterruptAfterTheUserHasGone(t *testing.T) {
	r := newRig(t)
	r.write("a", 1000)
	p := r.start(r.mountArgs(r.source)...)
	_, stop := r.hold("a")
	p.signal(os.Interrupt)
	waitFor(t, "the sentence", func() bool { return strings.Contains(p.err.String(), "Ctrl-C again") })
	stop()
	p.signal(os.Interrupt)
	if code := p.exit(); code != 0 || strings.Contains(p.err.String(), "detaching") {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

func TestTerminationForcesABusyMount(t *testing.T) {
	r := newRig(t)
	r.write("a", 1000)
	p := r.start(r.mountArgs(r.source)...)
	r.hold("a")
	p.signal(unix.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

func TestSomebodyElseUnmounts(t *testing.T) {
	r := newRig(t)
	p := r.start(r.mountArgs(r.source)...)
	name := "umount"
	if os.Geteuid() != 0 {
		name = "fusermount3"
	}
	args := map[string][]string{"umount": {r.dir}, "fusermount3": {"-u", r.dir}}[name]
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

func TestUnmountThroughTheSocket(t *testing.T) {
	r := newRig(t)
	r.mountBackground(r.source)
	client := agent.Dial(r.status(r.dir).Socket)
	defer client.Close()
	if err := client.Unmount(t.Context(), r.dir, false); err != nil {
		t.Error(err)
	}
	waitFor(t, "the process's end", func() bool { return len(r.processes()) == 0 })
}

func TestStaleMountIsReplacedAndWarm(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 4<<20)
	r.mountBackground(r.source)
	r.same("a", data)
	r.killAll()
	res := r.run("status")
	if res.code != 1 || !strings.Contains(res.out, "unresponsive") || len(res.lines()) != 1 {
		t.Errorf("status of a dead mount: exit %d, %s, %s", res.code, res.out, res.errOut)
	}
	r.refused(1, []string{"has gone", "millrace unmount " + r.dir}, "warm", r.dir)
	// Once as a replacement by mount, in the foreground, where the log tells of it.
	p := r.start(r.mountArgs(r.source)...)
	if !strings.Contains(p.err.String(), "detaching a mount whose process has gone") {
		t.Errorf("the log says nothing of the stale mount: %s", p.err)
	}
	r.same("a", data)
	if st := r.status(r.dir); st.Counters.BytesSource != 0 {
		t.Errorf("%d bytes came from the source though the cache was warm", st.Counters.BytesSource)
	}
	// And once by unmount.
	r.killAll()
	<-p.ended
	r.ok("unmount", r.dir)
	if res := r.ok("status"); res.out != "no mounts\n" {
		t.Errorf("status: %q", res.out)
	}
}

// killAll ends every process of the rig with SIGKILL, the keeper of a mount and the one that serves it at once, and
// waits until they are gone.
func (r *rig) killAll() {
	r.t.Helper()
	waitFor(r.t, "the processes' end", func() bool {
		pids := r.processes()
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return len(pids) == 0
	})
}

// TestServerDiesUnseen: the process that serves is killed again and again, and readers see nothing of it.
func TestServerDiesUnseen(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 4<<20)
	p := r.start(r.mountArgs(r.source)...)
	held, err := os.Open(filepath.Join(r.dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	roots := rootstat.Watch(t, r.dir)
	last := 0
	for range 4 {
		var pid int
		waitFor(t, "the next process", func() bool {
			res := r.run("status", "-o", "json", r.dir)
			var mounts []agent.MountStatus
			if json.Unmarshal([]byte(res.out), &mounts) != nil || len(mounts) != 1 ||
				mounts[0].State != agent.StateServing {
				return false
			}
			pid = mounts[0].PID
			return pid != last
		})
		last = pid
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.ok("status", r.dir)
		got := make([]byte, len(data))
		if _, err := held.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Fatal("the open file:", err)
		}
		r.same("a", data)
	}
	if !strings.Contains(p.err.String(), "died and is replaced") {
		t.Errorf("the log says nothing: %s", p.err)
	}
	roots.End()
	_ = held.Close()
	r.ok("unmount", r.dir)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestUnresponsiveMountIsShown(t *testing.T) {
	r := newRig(t)
	pid := r.mountBackground(r.source)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGCONT) }()
	res := r.run("status", "-o", "json")
	var mounts []agent.MountStatus
	if err := json.Unmarshal([]byte(res.out), &mounts); err != nil {
		t.Fatal(err)
	}
	if res.code != 1 || len(mounts) != 1 || mounts[0].State != agent.StateUnresponsive || mounts[0].Problem == "" ||
		mounts[0].Counters != nil {
		t.Errorf("exit %d: %s %s", res.code, res.out, res.errOut)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.ok("unmount", r.dir)
}

func TestTwoMountsAreListed(t *testing.T) {
	r := newRig(t)
	r.write("a", 10)
	second := filepath.Join(r.base, "second")
	if err := os.Mkdir(second, 0o755); err != nil {
		t.Fatal(err)
	}
	r.mountBackground(r.source)
	r.ok("mount", "--background", "--tier-dir", r.tier, "--quota", "1Mi", r.base+"/src/.", second)
	var mounts []agent.MountStatus
	if err := json.Unmarshal([]byte(r.ok("status", "-o", "json").out), &mounts); err != nil {
		t.Fatal(err)
	}
	if len(mounts) != 2 || mounts[0].Dir != r.dir || mounts[1].Dir != second {
		t.Errorf("got %+v", mounts)
	}
	r.ok("unmount", second)
	r.ok("unmount", r.dir)
}

func TestSourceGoesDownAndComesBack(t *testing.T) {
	r := newRig(t)
	cached, other := r.write("cached", 1000), r.write("other", 2000)
	var down atomic.Bool
	files := http.FileServer(http.Dir(r.source))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		files.ServeHTTP(w, req)
	}))
	defer server.Close()
	r.mountBackground(server.URL+"/", "--timeout", "1s")
	r.same("cached", cached)
	roots := rootstat.Watch(t, r.dir)
	down.Store(true)
	r.same("cached", cached)
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience())
	defer cancel()
	out, err := exec.CommandContext(ctx, "cat", filepath.Join(r.dir, "other")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Input/output error") ||
		time.Since(begun) > pace.Limit(10*time.Second) {
		t.Errorf("a read without a source: %s (%v) after %v", out, err, time.Since(begun))
	}
	down.Store(false)
	r.same("other", other)
	roots.End()
	r.ok("unmount", r.dir)
}

func TestBlocksOverTheSocket(t *testing.T) {
	r := newRig(t)
	data := r.write("d/a", 1000)
	r.mountBackground(r.source)
	r.same("d/a", data)
	client := agent.Dial(r.status(r.dir).Socket)
	defer client.Close()
	for _, path := range []string{"d/a", filepath.Join(r.dir, "d/a")} {
		blocks, err := client.Blocks(t.Context(), path)
		if err != nil || len(blocks) != 1 || len(blocks[0].Where) != 1 ||
			!strings.HasPrefix(blocks[0].Where[0], r.tier) {
			t.Errorf("blocks of %s: %+v, %v", path, blocks, err)
		}
	}
	r.ok("unmount", r.dir)
}

func TestWrongInput(t *testing.T) {
	r := newRig(t)
	r.write("a", 10)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/page/" {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<html><body><p>Welcome to our shop</p></body></html>")
	}))
	t.Cleanup(plain.Close)
	file, full := filepath.Join(r.base, "file"), filepath.Join(r.base, "full")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(r.base, "missing")
	cases := []struct {
		name string
		code int
		say  []string
		args []string
	}{
		{"no command", 2, []string{"a command is missing"}, nil},
		{"unknown command", 2, []string{`"moutn"`}, []string{"moutn"}},
		{"no arguments", 2, []string{"SOURCE and a DIR", "millrace mount --help"}, []string{"mount"}},
		{"one argument", 2, []string{"not 1 arg"}, []string{"mount", r.source}},
		{"three arguments", 2, []string{"not 3 arg"}, []string{"mount", r.source, r.dir, r.dir}},
		{"unknown flag", 2, []string{"--frobnicate"}, r.mountArgs(r.source, "--frobnicate")},
		{"flag without value", 2, []string{"--high needs a value"}, r.mountArgs(r.source, "--high")},
		{"bad size", 2, []string{"--staging", `"2Qi"`, "2Gi"}, r.mountArgs(r.source, "--staging", "2Qi")},
		{"negative size", 2, []string{"--read-ahead", `"-1"`}, r.mountArgs(r.source, "--read-ahead", "-1")},
		{"no size", 2, []string{"--quota", `"NaN"`}, []string{"mount", "--quota", "NaN", r.source, r.dir}},
		{"zero quota", 2, []string{"--quota", `"0"`}, []string{"mount", "--quota", "0", r.source, r.dir}},
		{"overflowing quota", 2, []string{"--quota", "too large"}, r.mountArgs(r.source, "--quota", "99999999Ti")},
		{"watermark over 1", 2, []string{"--high", `"1.5"`}, r.mountArgs(r.source, "--high", "1.5")},
		{
			"watermarks crossed", 2,
			[]string{"--low 0.9", "--high 0.5"},
			r.mountArgs(r.source, "--low", "0.9", "--high", "0.5"),
		},
		{"quotas without tiers", 2, []string{"--quota is given 2 times"}, r.mountArgs(r.source, "--quota", "1Gi")},
		{"bad level", 2, []string{"--log-level", "debug, info"}, r.mountArgs(r.source, "--log-level", "loud")},
		{"bad time", 2, []string{"--timeout", `"10"`}, r.mountArgs(r.source, "--timeout", "10")},
		{"bad mode", 2, []string{"--file-mode", `"999"`}, r.mountArgs(r.source, "--file-mode", "999")},
		{"bad option", 2, []string{"--option"}, r.mountArgs(r.source, "--option", "x")},
		{"missing directory", 1, []string{missing, "does not exist"}, []string{"mount", r.source, missing}},
		{"a file", 1, []string{file, "not a directory"}, []string{"mount", r.source, file}},
		{"not empty", 1, []string{full, "not empty"}, []string{"mount", r.source, full}},
		{"directory before source", 1, []string{full, "not empty"}, []string{"mount", "frob://x", full}},
		{"unknown scheme", 1, []string{"frob"}, r.mountArgs("frob://x/")},
		{"no scheme, no path", 1, []string{"data"}, r.mountArgs("data")},
		{"no such host", 1, []string{"nohost.invalid"}, r.mountArgs("http://nohost.invalid/")},
		{"nobody listens", 1, []string{"127.0.0.1:1"}, r.mountArgs("http://127.0.0.1:1/")},
		{"no index", 1, []string{plain.URL}, r.mountArgs(plain.URL + "/page/")},
		{"not found", 1, []string{plain.URL, "404"}, r.mountArgs(plain.URL + "/nothing/")},
		{"missing source", 1, []string{missing}, r.mountArgs(missing)},
		{"source is a file", 1, []string{file}, r.mountArgs(file)},
		{"unknown source option", 1, []string{"frob"}, r.mountArgs(r.source, "--option", "frob=1")},
		{"missing options file", 1, []string{missing}, r.mountArgs(r.source, "--options-file", missing)},
		{
			"huge quota", 1,
			[]string{"quota", "file system"},
			[]string{"mount", "--tier-dir", r.tier, "--quota", "8000000Ti", r.source, r.dir},
		},
		{"socket is a file", 1, []string{file}, r.mountArgs(r.source, "--socket", file)},
		{"socket in no directory", 1, []string{missing}, r.mountArgs(r.source, "--socket", missing+"/s")},
		{"log in no directory", 1, []string{missing}, r.mountArgs(r.source, "--log-file", missing+"/l")},
		{"unmount nothing", 2, []string{"one DIR"}, []string{"unmount"}},
		{"unmount no mount", 1, []string{r.dir, "not a millrace mount"}, []string{"unmount", r.dir}},
		{"unmount missing", 1, []string{missing, "does not exist"}, []string{"unmount", missing}},
		{
			"unmount another's mount", 1,
			[]string{"/proc", "not a millrace mount"},
			[]string{"unmount", "--force", "/proc"},
		},
		{"warm nothing", 2, []string{"at least one PATH"}, []string{"warm"}},
		{"warm elsewhere", 1, []string{r.dir, "not in a millrace mount"}, []string{"warm", r.dir}},
		{"warm missing", 1, []string{missing}, []string{"warm", missing}},
		{"warm jobs", 2, []string{"--jobs", `"0"`}, []string{"warm", "--jobs", "0", r.dir}},
		{"status of two", 2, []string{"at most one"}, []string{"status", r.dir, r.dir}},
		{"status elsewhere", 1, []string{"not a millrace mount"}, []string{"status", r.dir}},
		{"status format", 2, []string{"-o", "text, json"}, []string{"status", "-o", "xml"}},
		{"version argument", 2, []string{`"now"`}, []string{"version", "now"}},
	}
	for _, c := range cases {
		variants := [][]string{c.args}
		// Wrong usage is found before there is a background.
		if len(c.args) > 2 && c.args[0] == "mount" && c.code != 2 {
			variants = append(variants, append([]string{"mount", "--background"}, c.args[1:]...))
		}
		for i, args := range variants {
			t.Run(fmt.Sprintf("%s/%d", c.name, i), func(t *testing.T) {
				sub := *r
				sub.t = t
				sub.refused(c.code, c.say, args...)
				if left := append(sub.mounts(), sub.registered()...); len(left) > 0 {
					t.Errorf("left %v", left)
				}
				if left := sub.processes(); len(left) > 0 {
					t.Errorf("processes %v", left)
				}
			})
		}
	}
}

func TestMountedAlreadyAndInUse(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 10)
	r.mountBackground(r.source)
	r.refused(1, []string{r.dir, "mounted already", r.source}, r.mountArgs(r.source)...)
	r.refused(1, []string{r.dir, "mounted already"}, r.mountArgs(r.source, "--background")...)
	second := filepath.Join(r.base, "second")
	if err := os.Mkdir(second, 0o755); err != nil {
		t.Fatal(err)
	}
	// A second mount of a source caches beside the first.
	r.ok("mount", "--background", "--tier-dir", r.tier, r.source, second)
	r.sameAt(second, "a", data)
	r.ok("unmount", second)
	r.refused(1, []string{"another process answers"}, "mount", "--tier-dir", r.tier+"2", "--socket",
		r.status(r.dir).Socket, r.source, second)
	r.refused(1, []string{"inside the millrace mount"}, "unmount", r.dir+"/a")
	r.refused(1, []string{"not exist", "nope"}, "warm", r.dir+"/nope")
	r.same("a", data)
	r.ok("unmount", r.dir)
}

func TestRuntimeDirectoryOfOthersIsRefused(t *testing.T) {
	r := newRig(t)
	if err := os.Mkdir(r.runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.runtime, 0o777); err != nil {
		t.Fatal(err)
	}
	r.refused(1, []string{r.runtime, "0777"}, r.mountArgs(r.source)...)
	r.refused(1, []string{r.runtime, "0777"}, "status")
}

func TestInterruptWhileTheSourceIsSilent(t *testing.T) {
	r := newRig(t)
	url, asked := r.silentServer()
	for _, more := range [][]string{nil, {"--background"}} {
		before := asked.Load()
		errOut := &lockedBuffer{}
		cmd := r.command(t.Context(), r.mountArgs(url, more...)...)
		cmd.Stderr = errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "a request", func() bool { return asked.Load() > before })
		begun := time.Now()
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errOut.String(), "interrupted before") ||
			time.Since(begun) > pace.Limit(5*time.Second) {
			t.Errorf("%v: exit %d after %v: %s", more, code, time.Since(begun), errOut)
		}
	}
}

func TestSilentSourceIsGivenUp(t *testing.T) {
	r := newRig(t)
	url, _ := r.silentServer()
	r.refused(1, []string{"nothing came for 500ms"}, r.mountArgs(url, "--timeout", "500ms", "--background")...)
}

func TestBackgroundProcessThatDiesIsReported(t *testing.T) {
	r := newRig(t)
	url, asked := r.silentServer()
	errOut := &lockedBuffer{}
	cmd := r.command(t.Context(), r.mountArgs(url, "--background")...)
	cmd.Stderr = errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a request", func() bool { return asked.Load() > 0 })
	for _, pid := range r.processes() {
		if pid != cmd.Process.Pid {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errOut.String(), "killed") ||
		!strings.Contains(errOut.String(), r.runtime) {
		t.Errorf("exit %d: %s", code, errOut)
	}
}
