package kubenodes_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/images"
	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/machines"
)

// startsOne is the environment variable with which this test starts a cluster and waits to be killed.
const startsOne = "MILLRACE_NODES_TEST_STARTS"

func TestMain(m *testing.M) {
	machines.Main()
	if os.Getenv(startsOne) != "" {
		c, err := kubenodes.Start(context.Background(), options(func(string, ...any) {}))
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		fmt.Println("started", c.Dir())
		// Until it is killed, or the process that started it has gone.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func options(log func(string, ...any)) kubenodes.Options {
	return kubenodes.Options{Nodes: 2, Shm: 1 << 30, Images: images.Small, Log: log}
}

func need(t *testing.T) {
	t.Helper()
	if os.Getenv("MILLRACE_E2E") == "" {
		t.Skip("starts a Kubernetes cluster of two nodes: make e2e")
	}
	if err := kubenodes.Check(); err != nil {
		t.Skip(err)
	}
}

// pods are one on each node.
const pods = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: "busybox:stable", command: [sh, -c, "hostname >/tmp/index.html; exec httpd -f -p 80 -h /tmp"]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`

// TestCluster starts pods that talk to each other, and takes and gives back a node's power.
func TestCluster(t *testing.T) {
	need(t)
	ctx := t.Context()
	c, err := kubenodes.Start(ctx, options(t.Logf))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		nothingOf(t, c.Dir())
	}()
	if out, err := c.KubectlInput(ctx, pods, "apply", "-f", "-"); err != nil {
		t.Fatal(out, err)
	}
	if _, err := c.Kubectl(ctx, "rollout", "status", "daemonset/web", "--timeout=60s"); err != nil {
		t.Fatal(err)
	}
	everyNodeReaches(t, c)
	begin := time.Now()
	if err := c.PowerCut("node2"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(ctx, "wait", "node/node2", "--for=condition=Ready=Unknown", "--timeout=60s"); err != nil {
		t.Error(err)
	}
	t.Logf("node2 is not ready %v after its end", time.Since(begin).Round(100*time.Millisecond))
	if err := c.Boot(ctx, "node2"); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitNodes(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(ctx, "rollout", "status", "daemonset/web", "--timeout=60s"); err != nil {
		t.Error(err)
	}
	everyNodeReaches(t, c)
}

// everyNodeReaches has the pod of each node ask the Service by its name until both have answered.
func everyNodeReaches(t *testing.T, c *kubenodes.Cluster) {
	t.Helper()
	names, err := c.Kubectl(t.Context(), "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range strings.Fields(names) {
		missing := map[string]bool{}
		for _, to := range strings.Fields(names) {
			missing[to] = true
		}
		for range 200 {
			out, err := c.Kubectl(t.Context(), "exec", from, "--", "timeout", "3", "wget", "-qO-", "http://web.default")
			if err == nil {
				delete(missing, strings.TrimSpace(out))
			}
			if len(missing) == 0 {
				break
			}
		}
		if len(missing) > 0 {
			t.Errorf("%s does not reach %v", from, missing)
		}
	}
}

// TestKilledLeavesNothing kills a program that has started a cluster: neither processes nor files of it stay.
func TestKilledLeavesNothing(t *testing.T) {
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), startsOne+"=yes")
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
	line, err := bufio.NewReader(out).ReadString('\n')
	dir, started := strings.CutPrefix(strings.TrimSpace(line), "started ")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !started {
		t.Fatalf("the program says %q, %v", line, err)
	}
	nothingOf(t, dir)
}

// nothingOf waits until nothing of a cluster is left.
func nothingOf(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		left := leftOf(dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", left)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// leftOf finds the cluster's directory, its cgroups and its processes.
func leftOf(dir string) []string {
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(dir))
	if _, err := os.Stat(dir); err == nil {
		left = append(left, dir)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		if text, err := os.ReadFile(p); err == nil && strings.Contains(string(text), dir) {
			left = append(left, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return left
}
