package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/driver"
)

// manifest is the pod of a file of the kustomize base, and its only container with the arguments as kubelet gives them.
func manifest(t *testing.T, name string) (corev1.PodSpec, corev1.Container, []string) {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/kustomize/base/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	var spec corev1.PodSpec
	for doc := range strings.SplitSeq(string(raw), "\n---\n") {
		var set appsv1.DaemonSet // A Deployment's template is in the same place.
		if err := sigsyaml.Unmarshal([]byte(doc), &set); err != nil {
			t.Fatal(err)
		}
		if len(set.Spec.Template.Spec.Containers) == 1 {
			spec = set.Spec.Template.Spec
		}
	}
	if len(spec.Containers) != 1 {
		t.Fatalf("%s has no workload of one container", name)
	}
	c := spec.Containers[0]
	args := slices.Clone(c.Args)
	for i := range args {
		for _, v := range c.Env {
			value := map[string]string{"spec.nodeName": "node-1", "status.hostIP": "192.0.2.1"}[v.ValueFrom.FieldRef.FieldPath]
			args[i] = strings.ReplaceAll(args[i], "$("+v.Name+")", value)
		}
		if strings.Contains(args[i], "$(") {
			t.Errorf("%s: nothing gives a value to %s", name, args[i])
		}
	}
	if args[0] != name {
		t.Fatalf("%s runs %q", name, args)
	}
	return spec, c, args[1:]
}

// probed fails unless both probes ask one of the addresses, each given as path and address.
func probed(t *testing.T, c *corev1.Container, pages map[string]string) {
	t.Helper()
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
		port := p.HTTPGet.Port.String()
		for _, named := range c.Ports {
			if named.Name == port {
				port = strconv.Itoa(int(named.ContainerPort))
			}
		}
		address := pages[p.HTTPGet.Path]
		if want := address[strings.LastIndex(address, ":")+1:]; want != port {
			t.Errorf("a probe asks for %s on the port %s, and it is on %q", p.HTTPGet.Path, port, address)
		}
		if host, _, _ := strings.Cut(address, ":"); strings.HasPrefix(host, "127.") && p.HTTPGet.Host != host {
			t.Errorf("a probe asks %q for %s, which is on %s", p.HTTPGet.Host, p.HTTPGet.Path, address)
		}
	}
}

// shows tells whether a path of the node is at the same path in the container.
func shows(spec *corev1.PodSpec, path string) bool {
	for _, m := range spec.Containers[0].VolumeMounts {
		for _, v := range spec.Volumes {
			if v.Name == m.Name && v.HostPath != nil && v.HostPath.Path == m.MountPath && (path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")) {
				return true
			}
		}
	}
	return false
}

// TestManifestsOfNodes has the arguments of the driver and the agent understood by their own flags, and compares where they look for each other.
func TestManifestsOfNodes(t *testing.T) {
	nodePod, nodeContainer, args := manifest(t, "node")
	node, err := parseNode(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	agentPod, agentContainer, args := manifest(t, "agent")
	served, err := parseAgent(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if node.driver.AgentSocket != served.attachSocket {
		t.Errorf("the driver looks for the agent at %s, which is at %s", node.driver.AgentSocket, served.attachSocket)
	}
	if !slices.Equal(node.driver.Policy.TierDirs, served.tierDirs) || !slices.Equal(node.driver.Policy.LocalSources, served.allowLocal) {
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
	probed(t, &nodeContainer, map[string]string{"/healthz": node.driver.Health, "/readyz": node.driver.Health})
	probed(t, &agentContainer, map[string]string{"/healthz": served.probes})
	for _, path := range []string{node.driver.Endpoint, node.driver.StateDir, node.driver.RegistrationDir, node.driver.AgentSocket, "/var/lib/kubelet/pods", "/sys/fs/fuse/connections"} {
		if !shows(&nodePod, path) {
			t.Errorf("the driver does not see the node's %s", path)
		}
	}
	for _, path := range append([]string{served.attachSocket, served.socket, "/dev/shm/default/hbase"}, served.tierDirs...) {
		if !shows(&agentPod, path) {
			t.Errorf("the agent does not see the node's %s", path)
		}
	}
}

// TestManifestOfController has the controller's arguments understood.
func TestManifestOfController(t *testing.T) {
	spec, container, args := manifest(t, "controller")
	c, err := parseController(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	k := c.controller
	if !k.Elect || k.Settings.Namespace != "millrace-system" || k.Settings.MillraceImage != container.Image || k.Settings.Driver != driver.Name {
		t.Errorf("got %+v", k)
	}
	if !slices.ContainsFunc(spec.Tolerations, func(x corev1.Toleration) bool { return x.Key == k.Taint }) {
		t.Errorf("it takes the taint %q away and waits for that: it tolerates %v", k.Taint, spec.Tolerations)
	}
	probed(t, &container, map[string]string{"/healthz": k.Health, "/readyz": k.Health})
	for _, args := range [][]string{{"--startup-taint", "not a key"}, {"--startup-taint", ""}} {
		if _, err := parseController(args, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// TestProbesAddress reads addresses that are accepted, and others.
func TestProbesAddress(t *testing.T) {
	for _, good := range []string{":9064", "127.0.0.1:9064", "[::1]:0", "none"} {
		if _, err := parseAgent([]string{"--metrics-listen", good}, io.Discard); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "9064", ":", ":x", ":65536", "localhost:9064", "::1:9064"} {
		if _, err := parseAgent([]string{"--metrics-listen", bad}, io.Discard); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("--metrics-listen %q is not an address: accepted are a port", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestAgentProbes runs an agent whose health and metrics are asked for from outside, where nothing else answers.
func TestAgentProbes(t *testing.T) {
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), freeAddress(t)
	cmd := exec.Command(bin, "agent", "--attach-socket", filepath.Join(dir, "attach.sock"), "--socket", filepath.Join(dir, "agent.sock"),
		"--tier-dir", filepath.Join(dir, "tier"), "--metrics-listen", address)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	deadline := time.Now().Add(patience)
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
	if code, body := page(t, "http://"+address+"/metrics"); code != http.StatusOK || !strings.Contains(body, "\nmillrace_sessions 0\n") {
		t.Errorf("/metrics answers %d %s", code, body)
	}
	for _, other := range []string{"/v1/mounts", "/debug/pprof/", "/v1/free", "/"} {
		if code, body := page(t, "http://"+address+other); code != http.StatusNotFound {
			t.Errorf("%s answers %d %s", other, code, body)
		}
	}
	if out, err := exec.Command(bin, "agent", "--attach-socket", filepath.Join(dir, "other.sock"), "--socket", filepath.Join(dir, "more.sock"),
		"--tier-dir", filepath.Join(dir, "tier"), "--metrics-listen", address).CombinedOutput(); err == nil || !strings.Contains(string(out), "--metrics-listen "+address+": address already in use") {
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
	case <-time.After(patience):
		t.Fatal("the agent does not end")
	}
}

// freeAddress is one on which nobody listens.
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
