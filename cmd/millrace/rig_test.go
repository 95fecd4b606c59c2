package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
)

// patience bounds everything that a test waits for.
func patience() time.Duration { return pace.Limit(30 * time.Second) }

// atOnce is how many tests run side by side: most of their time they wait, for servers that are slow and for what gives
// up.
const atOnce = "6"

// binaryDir holds the binary under test until TestMain ends.
var binaryDir string

// binary builds millrace once, and the programs beside it, with the race detector where the test has it.
var binary = sync.OnceValues(func() (string, error) {
	args := []string{"build", "-o", binaryDir + "/"}
	if raceEnabled() {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../...")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return filepath.Join(binaryDir, "millrace"), nil
})

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", atOnce)
	var err error
	if binaryDir, err = os.MkdirTemp("", "millrace-bin"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(binaryDir)
	os.Exit(code)
}

// rig runs millrace as people do, with directories of its own. At the end of the test it
// fails if a mount, a process or a registry entry is left, and cleans up.
type rig struct {
	t                             *testing.T
	bin, base, runtime, tier, dir string
	source                        string
	env                           []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	t.Parallel()
	return newRigAlone(t)
}

// newRigAlone is a rig for a test that no other may run beside.
func newRigAlone(t *testing.T) *rig {
	t.Helper()
	needPrograms(t)
	needFUSE(t)
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, bin: bin, base: base, runtime: filepath.Join(base, "run"), tier: filepath.Join(base, "tier"),
		dir: filepath.Join(base, "mnt"), source: filepath.Join(base, "src"),
	}
	for _, d := range []string{r.dir, r.source} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The race detector would sleep a second at the end of each process.
	r.env = append(os.Environ(), "MILLRACE_RUNTIME_DIR="+r.runtime, "GORACE=atexit_sleep_ms=0")
	t.Cleanup(r.finish)
	return r
}

// needPrograms skips a test that runs the built programs.
func needPrograms(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the programs and runs them, which make unit has no time for; make test does")
	}
}

func needFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	_ = f.Close()
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Geteuid() != 0 {
		t.Skip("needs root or fusermount3")
	}
}

// finish fails the test if anything is left, and takes it away.
func (r *rig) finish() {
	for _, dir := range r.mounts() {
		r.t.Errorf("left mounted: %s", dir)
		_ = mountpoint.Unmount(dir, true)
	}
	for _, pid := range r.processes() {
		r.t.Errorf("left running: %d", pid)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for _, f := range r.registered() {
		r.t.Errorf("left in the runtime directory: %s", f)
	}
	if r.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(r.runtime, "*.log"))
		for _, l := range logs {
			text, _ := os.ReadFile(l)
			r.t.Logf("%s:\n%s", filepath.Base(l), text)
		}
	}
}

// mounts are the mount points below the rig.
func (r *rig) mounts() []string {
	r.t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Fatal(err)
	}
	var dirs []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && agent.Within(r.base, fields[4]) {
			dirs = append(dirs, fields[4])
		}
	}
	return dirs
}

// processes are the millrace processes with one of the rig's paths as an argument.
func (r *rig) processes() []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && bytes.HasPrefix(line, []byte(r.bin)) && bytes.Contains(line, []byte(r.base+"/")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// registered are the entries and sockets in the runtime directory; logs may stay.
func (r *rig) registered() []string {
	files, err := os.ReadDir(r.runtime)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Error(err)
	}
	var names []string
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".log" {
			names = append(names, f.Name())
		}
	}
	return names
}

// result is what a command did.
type result struct {
	code        int
	out, errOut string
	took        time.Duration
}

// lines are those of stderr.
func (r result) lines() []string {
	return strings.FieldsFunc(r.errOut, func(c rune) bool { return c == '\n' })
}

// run runs millrace to its end. It also waits until no process holds its output any more.
func (r *rig) run(args ...string) result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	cmd := r.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	begun := time.Now()
	err := cmd.Run()
	res := result{
		code: cmd.ProcessState.ExitCode(), out: out.String(), errOut: errOut.String(),
		took: time.Since(begun),
	}
	if err != nil && res.code <= 0 || ctx.Err() != nil {
		r.t.Fatalf("millrace %q: %v: %s", args, err, res.errOut)
	}
	return res
}

func (r *rig) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.bin, args...)
	cmd.Env = r.env
	return cmd
}

// ok runs millrace and fails unless it succeeds.
func (r *rig) ok(args ...string) result {
	r.t.Helper()
	res := r.run(args...)
	if res.code != 0 {
		r.t.Fatalf("millrace %q: exit %d: %s", args, res.code, res.errOut)
	}
	return res
}

// refused runs millrace and fails unless it exits with code and one line that says all of say.
func (r *rig) refused(code int, say []string, args ...string) {
	r.t.Helper()
	res := r.run(args...)
	lines := res.lines()
	if res.code != code || len(lines) != 1 || !strings.HasPrefix(res.errOut, "millrace: ") {
		r.t.Errorf("millrace %q: exit %d, want %d and one line, got %q", args, res.code, code, res.errOut)
		return
	}
	for _, s := range say {
		if !strings.Contains(lines[0], s) {
			r.t.Errorf("millrace %q says %q, which lacks %q", args, lines[0], s)
		}
	}
}

// mountArgs are the arguments of mount for this rig.
func (r *rig) mountArgs(source string, more ...string) []string {
	return append([]string{"mount", "--tier-dir", r.tier, "--quota", "64Mi", source, r.dir}, more...)
}

// mountBackground mounts source and returns its process's id.
func (r *rig) mountBackground(source string, more ...string) int {
	r.t.Helper()
	r.ok(r.mountArgs(source, append(more, "--background")...)...)
	return r.status(r.dir).PID
}

// status is the answer of status -o json for one mount.
func (r *rig) status(dir string) agent.MountStatus {
	r.t.Helper()
	res := r.run("status", "-o", "json", dir)
	var mounts []agent.MountStatus
	if err := json.Unmarshal([]byte(res.out), &mounts); err != nil || len(mounts) != 1 {
		r.t.Fatalf("status %s: exit %d, %q, %q, %v", dir, res.code, res.out, res.errOut, err)
	}
	return mounts[0]
}

// process is a millrace in the foreground.
type process struct {
	rig   *rig
	cmd   *exec.Cmd
	err   *lockedBuffer
	ended chan struct{}
}

// start starts millrace and waits until the mount answers.
func (r *rig) start(args ...string) *process {
	r.t.Helper()
	p := &process{
		rig: r, cmd: r.command(context.Background(), args...), err: &lockedBuffer{},
		ended: make(chan struct{}),
	}
	p.cmd.Stderr = p.err
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	r.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	waitFor(r.t, "the mount", func() bool { return strings.Contains(p.err.String(), "msg=mounted") })
	return p
}

// exit waits for the process's end and gives its code.
func (p *process) exit() int {
	p.rig.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience()):
		p.rig.t.Fatalf("millrace does not end; it said: %s", p.err)
		return -1
	}
}

func (p *process) signal(s os.Signal) {
	p.rig.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.rig.t.Fatal(err)
	}
}

// lockedBuffer is a buffer that is read while a process writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience()); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come within %v", what, patience())
		}
	}
}

// write makes a file of random bytes in the source.
func (r *rig) write(name string, size int) []byte {
	r.t.Helper()
	data := make([]byte, size)
	random := rand.NewChaCha8([32]byte{byte(size), byte(len(name))})
	_, _ = random.Read(data)
	path := filepath.Join(r.source, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		r.t.Fatal(err)
	}
	return data
}

// same compares a file of the mount with what it must be. It reads in another process:
// a test that hangs in a read of its own could not be stopped.
func (r *rig) same(name string, want []byte) {
	r.t.Helper()
	r.sameAt(r.dir, name, want)
}

// sameAt is same in another mount.
func (r *rig) sameAt(dir, name string, want []byte) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	got, err := exec.CommandContext(ctx, "cat", "--", filepath.Join(dir, name)).Output()
	if err != nil || !bytes.Equal(got, want) {
		r.t.Errorf("%s: %d bytes that differ from the %d bytes it has (%v)", name, len(got), len(want), err)
	}
}

// hold has another process keep a file of the mount open until the test ends or stop is called.
func (r *rig) hold(name string) (pid int, stop func()) {
	r.t.Helper()
	f, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("sleep", "300")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	_ = f.Close()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	r.t.Cleanup(stop)
	return cmd.Process.Pid, stop
}
