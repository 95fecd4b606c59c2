package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// victimVariable has the test binary start a cluster, tell of it and wait to be killed.
const victimVariable = "MILLRACE_CLUSTER_VICTIM"

func beVictim() {
	c, err := cluster.Start(context.Background(), cluster.Config{Masters: 1, NoWorkers: true})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(c.Dir(), c.Masters()[0].Pid())
	select {}
}

func TestAClusterGoesWithTheProcessThatIsKilled(t *testing.T) {
	shared.Get(t) // skips, or fails, where no cluster can be
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var dir string
	var pid int
	if _, err := fmt.Sscan(line, &dir, &pid); err != nil {
		t.Fatalf("the process says %q: %v", line, err)
	}
	tier := filepath.Join("/dev/shm", filepath.Base(dir))
	for _, path := range []string{dir, tier} {
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, one := os.Stat(dir)
		_, two := os.Stat(tier)
		if syscall.Kill(pid, 0) != nil && one != nil && two != nil {
			break
		}
	}
	checkGone(t, []int{pid}, dir, tier)
}

func TestAServerThatEndsByItselfEndsTheStart(t *testing.T) {
	shared.Get(t)
	begin := time.Now()
	_, err := cluster.Start(t.Context(), cluster.Config{
		Masters: 1, NoWorkers: true,
		Properties: map[string]string{"alluxio.master.journal.type": "CLAY"},
	})
	if err == nil || !strings.Contains(err.Error(), "master-1 ended by itself: ") ||
		!strings.Contains(err.Error(), "JournalType") {
		t.Errorf("started: %v", err)
	}
	pace.Within(t, "the end of the start", time.Since(begin), time.Minute)
}

func TestWhatIsNotInstalledIsNamed(t *testing.T) {
	t.Setenv("JAVA_HOME", "")
	t.Setenv("PATH", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := cluster.Start(t.Context(), cluster.Config{})
	if !errors.Is(err, cluster.ErrMissing) || !strings.Contains(err.Error(), "default-jre-headless") {
		t.Errorf("without java: %v", err)
	}
	fakeJava := filepath.Join(os.Getenv("PATH"), "java")
	if err := os.WriteFile(fakeJava, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Start(t.Context(), cluster.Config{})
	if !errors.Is(err, cluster.ErrMissing) || !strings.Contains(err.Error(), "the package maven") {
		t.Errorf("without mvn: %v", err)
	}
}

func TestAConfigThatCannotBeIsRefused(t *testing.T) {
	for _, c := range []struct {
		config cluster.Config
		want   string
	}{
		{cluster.Config{Masters: -1}, "Masters of the cluster.Config is -1: from 1 to 9"},
		{cluster.Config{Workers: 1, NoWorkers: true}, "NoWorkers of the cluster.Config is set and Workers is 1"},
		{
			cluster.Config{UFS: "/no/such"},
			`UFS of the cluster.Config is "/no/such": the absolute path of a directory, or a URI`,
		},
		{cluster.Config{BlockSize: -4}, "BlockSize of the cluster.Config is -4"},
		{cluster.Config{ElectionMin: time.Second}, "ElectionMin of the cluster.Config is 1s and ElectionMax 0s"},
		{cluster.Config{MasterHeap: 1}, "MasterHeap of the cluster.Config is 1: from 67108864"},
	} {
		_, err := cluster.Start(t.Context(), c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
}

// Two processes, of which here each is a call with a lock of its own, resolve the jars once.
func TestTwoAtOnceResolveTheJars(t *testing.T) {
	if testing.Short() {
		t.Skip("resolves Alluxio's jars by Maven: make test")
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		t.Skip("needs mvn")
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	type result struct {
		dir string
		err error
	}
	results := make(chan result, 2)
	for range cap(results) {
		go func() {
			dir, err := cluster.Jars(t.Context())
			results <- result{dir, err}
		}()
	}
	one, two := <-results, <-results
	if one != two || one.err != nil {
		t.Fatalf("%v and %v", one, two)
	}
	jars, err := filepath.Glob(filepath.Join(one.dir, "*.jar"))
	if err != nil || len(jars) < 100 {
		t.Errorf("%d jars: %v", len(jars), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(one.dir), "resolving-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
