package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/cluster"
)

var shared cluster.Shared

func TestMain(m *testing.M) {
	if os.Getenv(victimVariable) != "" {
		beVictim()
	}
	os.Exit(shared.Run(m))
}

// write puts a file into the cluster's under store.
func write(t *testing.T, c *cluster.Cluster, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.UFS(), name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// read reads a file through Alluxio, and checks what it has.
func read(t *testing.T, c *cluster.Cluster, path, want string) {
	t.Helper()
	got, err := c.Shell(t.Context(), "cat", path)
	if err != nil || got != want {
		t.Fatalf("%s reads %q, %v; want %q", path, got, err, want)
	}
}

func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func TestAClusterServesItsUnderStore(t *testing.T) {
	c := shared.Get(t)
	if masters, workers := len(c.Masters()), len(c.Workers()); masters != 3 || workers != 2 {
		t.Errorf("%d masters and %d workers", masters, workers)
	}
	hosts := map[string]bool{}
	for _, s := range c.Servers() {
		hosts[s.Host] = true
		if s.RSS() < 50<<20 || s.RSS() > 500<<20 {
			t.Errorf("%s: resident memory of %d bytes", s.Name, s.RSS())
		}
	}
	if len(hosts) != 5 {
		t.Errorf("five servers share hosts: %v", hosts)
	}
	write(t, c, "a file", "hello\n")
	read(t, c, "/a file", "hello\n")
	report, err := c.Admin(t.Context(), "report", "summary")
	if err != nil || !strings.Contains(report, "Live Workers: 2") {
		t.Errorf("fsadmin report: %v\n%s", err, report)
	}
	if _, err := c.Shell(t.Context(), "cat", "/no such file"); err == nil ||
		!strings.Contains(err.Error(), "FileSystemShell cat /no such file: exit status") {
		t.Errorf("a failing command: %v", err)
	}
}

func TestAnotherMasterLeadsAfterTheLeaderIsKilled(t *testing.T) {
	c := shared.Get(t)
	old, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	if old.Running() || old.RSS() != 0 {
		t.Error("the killed leader runs")
	}
	next, err := c.Leader(within(t, 3*time.Minute))
	if err != nil || next == old {
		t.Fatalf("leader %v after %s was killed: %v", next, old.Name, err)
	}
	if err := c.WaitReady(within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	write(t, c, "after the kill", "x")
	read(t, c, "/after the kill", "x")
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	if err := old.Start(); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("started twice: %v", err)
	}
	if err := c.WaitReady(within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
}

func TestAPausedLeaderIsReplacedAndGoesOn(t *testing.T) {
	c := shared.Get(t)
	old, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Pause(); err != nil {
		t.Fatal(err)
	}
	next, err := c.Leader(within(t, 3*time.Minute))
	if err != nil || next == old || !old.Running() {
		t.Fatalf("leader %v while %s is paused (running %v): %v", next, old.Name, old.Running(), err)
	}
	// The workers give the old leader up too.
	if err := c.WaitReady(within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := old.Resume(); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Leader(within(t, 3*time.Minute)); err != nil || again != next {
		t.Errorf("leader %v after %s went on: %v", again, old.Name, err)
	}
}

func TestAWorkerComesBackWithItsBlocks(t *testing.T) {
	c := shared.Get(t)
	text := strings.Repeat("block\n", 1000)
	write(t, c, "cached", text)
	read(t, c, "/cached", text)
	for _, w := range c.Workers() {
		if err := w.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range c.Workers() {
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitReady(within(t, 3*time.Minute)); err != nil {
		t.Fatal(err)
	}
	listing, err := c.Shell(t.Context(), "ls", "/cached")
	if err != nil || !strings.Contains(listing, "100% /cached") {
		t.Errorf("listed after the restart: %v\n%s", err, listing)
	}
	if countBlocks(t, c.Workers()[0])+countBlocks(t, c.Workers()[1]) == 0 {
		t.Error("no block file in any tier")
	}
}

// countBlocks counts the block files in a worker's tier.
func countBlocks(t *testing.T, w *cluster.Server) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(w.TierDir, "alluxioworker", "[0-9]*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestTwoClustersAtOnceAndNothingIsLeft(t *testing.T) {
	other := shared.Get(t)
	root := filepath.Join(t.TempDir(), `a=b:c #d ü €`)
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Config{
		Masters: 1, Workers: 1, SameHost: true, Proxies: true,
		UFS: root,
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, "of the second", "y")
	read(t, c, "/of the second", "y")
	if host := c.Workers()[0].Host; host != "127.0.0.1" {
		t.Errorf("SameHost put the worker on %s", host)
	}
	// The file came through the worker's proxy, and the client asked the master itself.
	for _, s := range c.Servers() {
		t.Logf("%s: %+v", s.Name, s.Proxy().Stats())
	}
	if stats := c.Workers()[0].Proxy().Stats(); stats.Accepted == 0 || stats.Down == 0 {
		t.Errorf("the worker's proxy: %+v", stats)
	}
	tier := filepath.Dir(c.Workers()[0].TierDir)
	var pids []int
	for _, s := range c.Servers() {
		pids = append(pids, s.Pid())
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("stopped twice: %v", err)
	}
	checkGone(t, pids, c.Dir(), tier)
	if _, err := os.Stat(filepath.Join(root, "of the second")); err != nil {
		t.Errorf("the under store was not the cluster's: %v", err)
	}
	if err := c.Masters()[0].Start(); err == nil {
		t.Error("a server starts after its cluster stopped")
	}
	for _, s := range other.Servers() {
		if !s.Running() {
			t.Errorf("%s of the first cluster is gone", s.Name)
		}
	}
}

// checkGone checks that no process and no directory is left.
func checkGone(t *testing.T, pids []int, dirs ...string) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}
