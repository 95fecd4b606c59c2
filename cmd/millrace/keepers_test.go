package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/keeping"
	"millrace.io/millrace/fuse/socket"
)

// nodeKeeper starts the keeper of a node beside the socket of an agent, with the volume "kept", and returns both
// sockets.
func nodeKeeper(t *testing.T) (agentSocket, path string) {
	t.Helper()
	dir := t.TempDir()
	agentSocket, path = filepath.Join(dir, "agent.sock"), filepath.Join(dir, "keeper", "keeper.sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := socket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- keeping.New(0, slog.New(slog.DiscardHandler)).Serve(ctx, l, 0) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if err := keeping.Dial(path).Put(t.Context(), "kept", "mount", null, null); err != nil {
		t.Fatal(err)
	}
	return agentSocket, path
}

// asked are three mounts, one of which tells of a keeper of its own, after the keeper beside an agent was asked.
func asked(ctx context.Context, agentSocket string) (kept, other, own *agent.Keeper) {
	mounts := []agent.MountStatus{
		{Name: agent.MountName("kept")}, {Name: agent.MountName("other")}, {Keeper: &agent.Keeper{PID: 1, Keeps: true}},
	}
	askKeeper(ctx, agentSocket, mounts)
	return mounts[0].Keeper, mounts[1].Keeper, mounts[2].Keeper
}

// TestKeeperOfANode asks a keeper that has one of two mounts, one that does not answer, one that is not there, and
// none.
func TestKeeperOfANode(t *testing.T) {
	agentSocket, path := nodeKeeper(t)
	kept, other, own := asked(t.Context(), agentSocket)
	if *kept != (agent.Keeper{Socket: path, Keeps: true}) || other.Keeps || other.Problem == "" || own.PID != 1 {
		t.Errorf("%+v, %+v, %+v", kept, other, own)
	}
	away := t.TempDir()
	if err := os.Mkdir(filepath.Join(away, "keeper"), 0o700); err != nil {
		t.Fatal(err)
	}
	kept, _, own = asked(t.Context(), filepath.Join(away, "agent.sock"))
	if kept.Keeps || !strings.HasPrefix(kept.Problem, "it does not answer: ") || own.PID != 1 {
		t.Errorf("one that is not there: %+v, %+v", kept, own)
	}
	silent, err := socket.Listen(filepath.Join(away, "keeper", "keeper.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if kept, _, _ = asked(ctx, filepath.Join(away, "agent.sock")); kept.Keeps || kept.Problem == "" {
		t.Errorf("one that is silent: %+v", kept)
	}
	if kept, other, _ = asked(t.Context(), filepath.Join(t.TempDir(), "agent.sock")); kept != nil || other != nil {
		t.Errorf("without a keeper: %+v, %+v", kept, other)
	}
}

// TestKeeperOfAnEntry tells of the keeper of a process that does not answer: one that is stopped, one whose keeper has
// gone, and one that has gone itself.
func TestKeeperOfAnEntry(t *testing.T) {
	child := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	gone := func() int {
		ended := exec.CommandContext(t.Context(), "true")
		if err := ended.Run(); err != nil {
			t.Fatal(err)
		}
		return ended.Process.Pid
	}
	if k := keeperOf(agent.Entry{PID: pid}); k != nil {
		t.Errorf("without a keeper: %+v", k)
	}
	if k := keeperOf(agent.Entry{PID: pid, Keeper: os.Getpid()}); *k != (agent.Keeper{PID: os.Getpid(), Keeps: true}) {
		t.Errorf("stopped: %+v", k)
	}
	if k := keeperOf(agent.Entry{PID: pid, Keeper: gone()}); k.Keeps || k.Problem != agent.KeeperGone {
		t.Errorf("its keeper has gone: %+v", k)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if k := keeperOf(agent.Entry{PID: pid, Keeper: os.Getpid()}); !k.Keeps {
		t.Errorf("it is about to be replaced: %+v", k)
	}
	if k := keeperOf(agent.Entry{PID: pid, Keeper: gone()}); k.Keeps {
		t.Errorf("both have gone: %+v", k)
	}
}

// TestStatusNamesKeepers has the table name each keeper that keeps its mount, and say of the others why not.
func TestStatusNamesKeepers(t *testing.T) {
	mounts := []agent.MountStatus{
		{Dir: "/a", State: agent.StateServing, Keeper: &agent.Keeper{PID: 12, Keeps: true}},
		{Dir: "/b", State: agent.StateServing, Keeper: &agent.Keeper{PID: 13, Problem: agent.KeeperGone}},
		{Dir: "/c", State: agent.StateServing, Keeper: &agent.Keeper{Socket: "/k.sock", Keeps: true}},
		{Dir: "/d", State: agent.StateServing, Keeper: &agent.Keeper{Socket: "/k.sock", Problem: "it sleeps"}},
		{Dir: "/e", State: agent.StateServing},
		{Dir: "/f", State: agent.StateUnresponsive, Keeper: &agent.Keeper{PID: 14, Problem: agent.KeeperGone}},
	}
	var out strings.Builder
	if err := writeTable(&out, mounts); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, ends := range []string{" KEEPER", " pid 12", " none", " /k.sock", " none", " none", " none"} {
		if !strings.HasSuffix(lines[i], ends) {
			t.Errorf("%q does not end with %q", lines[i], ends)
		}
	}
	want := []string{"/b: the keeper, process 13: " + agent.KeeperGone, "/d: the keeper, /k.sock: it sleeps"}
	if got := lines[len(mounts)+1:]; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the notes are %q", got)
	}
}

// TestStatusOfAKeptMount has a mount tell of its keeper, and go on when that is killed, which it tells as well.
func TestStatusOfAKeptMount(t *testing.T) {
	r := newRig(t)
	data := r.write("a", 1<<20)
	pid := r.mountBackground(r.source)
	st := r.status(r.dir)
	if k := st.Keeper; k == nil || !k.Keeps || k.Problem != "" || k.PID == 0 || k.PID == st.PID {
		t.Fatalf("the keeper is %+v, process %d serves", k, st.PID)
	}
	if table := r.ok("status").out; !strings.Contains(table, " pid ") || strings.Contains(table, "none") {
		t.Errorf("the table: %s", table)
	}
	if err := unix.Kill(st.Keeper.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the status to tell of it", func() bool {
		now := r.status(r.dir).Keeper
		return now.PID == st.Keeper.PID && !now.Keeps && now.Problem == agent.KeeperGone
	})
	if table := r.ok("status").out; !strings.Contains(table, " none") || !strings.Contains(table, agent.KeeperGone) {
		t.Errorf("the table: %s", table)
	}
	r.same("a", data)
	r.ok("unmount", r.dir)
	r.ended(pid)
	waitFor(t, "the process's end", func() bool { return len(r.processes()) == 0 })
}
