package controller_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/pace"
)

// program builds the program once for all tests of the package.
var program = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(work, "millrace-controller")
	// As make build has built it, so that nothing is compiled a second time.
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "../../cmd/millrace-controller")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return bin, nil
})

// process is a controller that runs as users run it.
type process struct {
	cmd             *exec.Cmd
	health, metrics string
	ended           chan error

	// mu guards log.
	mu  sync.Mutex
	log []string
}

// run starts `millrace controller` for a namespace, with its lease in the same, until the test ends.
func run(t *testing.T, s *kube.Server, ns string, flags ...string) *process {
	t.Helper()
	bin, err := program()
	must(t, err)
	p := &process{health: free(t), metrics: free(t), ended: make(chan error, 1)}
	config, err := s.Kubeconfig("controller-"+p.health, "system:masters")
	must(t, err)
	p.cmd = exec.Command(bin, append([]string{
		"--kubeconfig", config, "--namespace", ns, "--watch-namespace", ns, "--health", p.health, "--metrics",
		p.metrics, "--log-format", "json",
	}, flags...)...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	must(t, err)
	must(t, p.cmd.Start())
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			p.mu.Unlock()
		}
		p.ended <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the process %d wrote\n%s", p.cmd.Process.Pid, strings.Join(p.lines(), "\n"))
		}
	})
	return p
}

func (p *process) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

// kill ends it with SIGKILL; it may have ended already.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	select {
	case err := <-p.ended:
		p.ended <- err
	case <-time.After(patience):
	}
}

// free is an address that no server listens on. Its host is one that others have no reason to take a port of meanwhile.
func free(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4",
		fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// get asks for a page, and returns the status and the body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

// TestProcess runs the program: health, metrics, a log that programs read, an end at SIGTERM that changes nothing.
func TestProcess(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	p := run(t, s, ns, "--leader-elect=false")
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	for _, page := range []string{"/healthz", "/readyz"} {
		if code, body := get(t, "http://"+p.health+page); code != http.StatusOK {
			t.Errorf("%s answers %d %s", page, code, body)
		}
	}
	code, body := get(t, "http://"+p.metrics+"/metrics")
	for _, name := range []string{
		`controller_runtime_reconcile_total{controller="dataset"`, "workqueue_depth",
		"rest_client_requests_total", `millrace_datasets{phase="NotBound"} 1`,
	} {
		if code != http.StatusOK || !strings.Contains(body, name) {
			t.Errorf("/metrics (%d) does not have %s", code, name)
		}
	}
	before := settled(t, c, ns)
	begun := time.Now()
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.ended:
		p.ended <- err
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end at SIGTERM")
	}
	pace.Within(t, "the end at SIGTERM", time.Since(begun), 3*time.Second)
	if after := versions(t, c, ns); !maps.Equal(before, after) {
		t.Errorf("its end changed objects: before\n%v\nafter\n%v", before, after)
	}
	lines := p.lines()
	if len(lines) == 0 {
		t.Error("it has logged nothing")
	}
	for _, line := range lines {
		var event struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Time == "" || event.Msg == "" {
			t.Errorf("not an event in JSON: %s", line)
		}
	}
}

// TestWrongUsage gives arguments and places that are none.
func TestWrongUsage(t *testing.T) {
	needKube(t)
	bin, err := program()
	must(t, err)
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"now"}, 2, "takes no arguments"},
		{[]string{"--metrics"}, 2, "--metrics"},
		{[]string{"--kubeconfig", "/nowhere/config"}, 1, "/nowhere/config"},
	} {
		out, err := exec.Command(bin, tc.args...).CombinedOutput()
		exit := &exec.ExitError{}
		if !errors.As(err, &exit) || exit.ExitCode() != tc.code || !strings.Contains(string(out), tc.says) {
			t.Errorf("%q ends with %v and says %s; want the code %d and %q", tc.args, err, out, tc.code, tc.says)
		}
	}
}

// TestTakeOver kills the one of two controllers that works.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	both := []*process{run(t, s, ns), run(t, s, ns)}
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	holder := func() string {
		lease := &coordinationv1.Lease{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "millrace-controller"}, lease))
		if lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
	first := holder()
	working := 0
	for _, p := range both {
		if strings.Contains(strings.Join(p.lines(), "\n"), "Starting Controller") {
			working++
		}
		if code, _ := get(t, "http://"+p.health+"/healthz"); code != http.StatusOK {
			t.Errorf("a controller is not healthy: %d", code)
		}
	}
	if working != 1 {
		t.Fatalf("%d of 2 controllers work", working)
	}
	before := settled(t, c, ns)
	begun := time.Now()
	for _, p := range both {
		if strings.Contains(strings.Join(p.lines(), "\n"), "Starting Controller") {
			p.kill()
		}
	}
	must(t, c.Patch(t.Context(), alluxio(t, c, ns, "hbase"),
		mergePatch(map[string]any{"spec": map[string]any{"replicas": 3}})))
	eventually(t, "the other goes on", func() string {
		set := &appsv1.StatefulSet{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase-worker"}, set))
		if *set.Spec.Replicas == 3 {
			return ""
		}
		return "the StatefulSet is as it was; the lease is " + holder()
	})
	t.Logf("taken over after %v", time.Since(begun).Round(100*time.Millisecond))
	if second := holder(); second == first || second == "" {
		t.Errorf("the lease was %s's and is %s's", first, second)
	}
	after := settled(t, c, ns)
	delete(before, "StatefulSet hbase-worker")
	delete(after, "StatefulSet hbase-worker")
	if !maps.Equal(before, after) {
		t.Errorf("the second controller changed what nobody asked for: before\n%v\nafter\n%v", before, after)
	}
}
