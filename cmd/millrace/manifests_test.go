package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/driver"
	"millrace.io/millrace/sanity/manifest"
)

// shows reports whether a path of the node is at the same path in the container.
func shows(spec *corev1.PodSpec, path string) bool {
	for _, m := range spec.Containers[0].VolumeMounts {
		for _, v := range spec.Volumes {
			if v.Name == m.Name && v.HostPath != nil && v.HostPath.Path == m.MountPath &&
				(path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")) {
				return true
			}
		}
	}
	return false
}

// TestManifestsOfNodes has the arguments of the driver and the agent understood by their own flags, and compares where
// they and the keeper look for each other.
func TestManifestsOfNodes(t *testing.T) {
	nodePod, nodeContainer, args := manifest.Read(t, "node")
	node, err := parseNode(args)
	if err != nil {
		t.Fatal(err)
	}
	agentPod, agentContainer, args := manifest.Read(t, "agent")
	served, err := parseAgent(args)
	if err != nil {
		t.Fatal(err)
	}
	if node.driver.AgentSocket != served.attachSocket {
		t.Errorf("the driver looks for the agent at %s, which is at %s", node.driver.AgentSocket, served.attachSocket)
	}
	keeperPod, keeperContainer, args := manifest.Read(t, "keeper")
	want := []string{"/usr/bin/millrace-keeper", "--socket=" + node.driver.KeeperSocket}
	if !slices.Equal(append(keeperContainer.Command, args...), want) {
		t.Errorf("the keeper runs %q with %q, want %q", keeperContainer.Command, args, want)
	}
	if !shows(&keeperPod, node.driver.KeeperSocket) || shows(&keeperPod, node.driver.AgentSocket) {
		t.Errorf("the keeper sees the node's %v, want its own directory alone", keeperContainer.VolumeMounts)
	}
	if !slices.Equal(node.driver.Policy.TierDirs, served.tierDirs) ||
		!slices.Equal(node.driver.Policy.LocalSources, served.allowLocal) {
		t.Errorf("the driver allows %v, the agent %v and %v", node.driver.Policy, served.tierDirs, served.allowLocal)
	}
	if node.driver.NodeID != "node-1" || !slices.Equal(served.localHosts, []string{"192.0.2.1", "node-1"}) {
		t.Errorf("the driver is of the node %q, the agent's hosts are %q", node.driver.NodeID, served.localHosts)
	}
	if want := filepath.Join("/var/lib/kubelet/plugins", driver.Name, "csi.sock"); node.driver.Endpoint != want {
		t.Errorf("the endpoint is %s, want %s", node.driver.Endpoint, want)
	}
	node.driver.Version = "test"
	if _, err := driver.New(node.driver); err != nil {
		t.Error(err)
	}
	manifest.Probed(t, &nodeContainer, map[string]string{"/healthz": node.driver.Health, "/readyz": node.driver.Health})
	manifest.Probed(t, &agentContainer, map[string]string{"/healthz": served.probes})
	for _, path := range []string{
		node.driver.Endpoint, node.driver.StateDir, node.driver.RegistrationDir, node.driver.AgentSocket,
		node.driver.KeeperSocket, "/var/lib/kubelet/pods", "/sys/fs/fuse/connections",
	} {
		if !shows(&nodePod, path) {
			t.Errorf("the driver does not see the node's %s", path)
		}
	}
	for _, path := range append([]string{served.attachSocket, served.socket, "/dev/shm/default/hbase"},
		served.tierDirs...) {
		if !shows(&agentPod, path) {
			t.Errorf("the agent does not see the node's %s", path)
		}
	}
}

// TestProbesAddress reads addresses that are accepted, and others.
func TestProbesAddress(t *testing.T) {
	for _, good := range []string{":9064", "127.0.0.1:9064", "[::1]:0", "none"} {
		if _, err := parseAgent([]string{"--metrics-listen", good}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "9064", ":", ":x", ":65536", "localhost:9064", "::1:9064"} {
		if _, err := parseAgent([]string{"--metrics-listen", bad}); err == nil ||
			!strings.Contains(err.Error(), fmt.Sprintf("--metrics-listen %q is not an address: accepted are a port",
				bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestAgentProbes runs an agent whose health and metrics are asked for from outside, where nothing else answers.
func TestAgentProbes(t *testing.T) {
	needPrograms(t)
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), freeAddress(t)
	cmd := exec.Command(bin, "agent", "--attach-socket", filepath.Join(dir, "attach.sock"), "--socket",
		filepath.Join(dir, "agent.sock"),
		"--tier-dir", filepath.Join(dir, "tier"), "--metrics-listen", address)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	deadline := time.Now().Add(patience())
	for {
		code, body := page(t, "http://"+address+"/healthz")
		if code == http.StatusOK && strings.Contains(body, `"mounts":0`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("/healthz answers %d %s", code, body)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if code, body := page(t, "http://"+address+"/metrics"); code != http.StatusOK ||
		!strings.Contains(body, "\nmillrace_sessions 0\n") {
		t.Errorf("/metrics answers %d %s", code, body)
	}
	for _, other := range []string{"/v1/mounts", "/debug/pprof/", "/v1/free", "/"} {
		if code, body := page(t, "http://"+address+other); code != http.StatusNotFound {
			t.Errorf("%s answers %d %s", other, code, body)
		}
	}
	if out, err := exec.Command(bin, "agent", "--attach-socket", filepath.Join(dir, "other.sock"), "--socket",
		filepath.Join(dir, "more.sock"),
		"--tier-dir", filepath.Join(dir, "tier"), "--metrics-listen", address).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "--metrics-listen "+address+": address already in use") {
		t.Errorf("a second agent on the same address ends with %v and says %s", err, out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the agent ended with %v: %s", err, log.String())
		}
	case <-time.After(patience()):
		t.Fatal("the agent does not end")
	}
}

// freeAddress is one on which no server listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// page is what a server answers; a code of 0 stands for none.
func page(t *testing.T, url string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}
