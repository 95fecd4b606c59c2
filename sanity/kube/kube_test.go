package kube

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// startsOne is the environment variable with which this test starts a server and waits to be killed.
const startsOne = "MILLRACE_KUBE_TEST_STARTS"

func TestMain(m *testing.M) {
	if os.Getenv(startsOne) != "" {
		s, err := Start(context.Background(), Options{Controllers: Usual})
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		fmt.Println("started", s.dir)
		select {}
	}
	os.Exit(m.Run())
}

// TestStartedAgain stops the API and starts it again: what it has stored is there.
func TestStartedAgain(t *testing.T) {
	t.Parallel()
	Need(t)
	s := ForTest(t, Options{})
	if out, err := s.Kubectl(t.Context(), "create", "namespace", "kept"); err != nil {
		t.Fatal(err, out)
	}
	if err := s.StopAPI(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Kubectl(t.Context(), "get", "namespace", "kept", "--request-timeout=2s"); err == nil {
		t.Errorf("an API that is stopped answers %s", out)
	}
	if err := s.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Kubectl(t.Context(), "get", "namespace", "kept"); err != nil {
		t.Error(err, out)
	}
}

// TestKilledLeavesNothing kills a process that has started a server: neither processes nor files of it stay.
func TestKilledLeavesNothing(t *testing.T) {
	t.Parallel()
	Need(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), startsOne+"=yes")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	dir, started := strings.CutPrefix(strings.TrimSpace(line), "started ")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !started {
		t.Fatalf("the process says %q, %v", line, err)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		left := processesOf(dir)
		if _, err := os.Stat(dir); err == nil {
			left = append(left, dir)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", left)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// processesOf are the processes whose arguments name a directory.
func processesOf(dir string) []string {
	var found []string
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), dir) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

// TestServerDiesAlone kills etcd under a server, which must be noticed and not hang.
func TestServerDiesAlone(t *testing.T) {
	t.Parallel()
	Need(t)
	s, err := Start(context.WithoutCancel(t.Context()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.etcd.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	begun := time.Now()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	pace.Within(t, "Stop", time.Since(begun), 10*time.Second)
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("the directory is left")
	}
}
