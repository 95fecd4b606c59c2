package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/mixin"
)

// onNode1 is the pod of a DaemonSet on the first node.
func (r *rest) onNode1(t *testing.T, component string) string {
	t.Helper()
	return strings.TrimSpace(r.kubectl(t, "get", "pod", "-n", namespace, "-l", "app.kubernetes.io/component="+component,
		"--field-selector", "spec.nodeName=node1", "-o", "jsonpath={.items[0].metadata.name}"))
}

// inside runs the program in the container of a DaemonSet on the first node.
func (r *rest) inside(t *testing.T, component string, args ...string) (string, error) {
	t.Helper()
	all := append([]string{"exec", "-n", namespace, r.onNode1(t, component), "--", "millrace"}, args...)
	return r.cluster.Kubectl(t.Context(), all...)
}

// statistics asks kubelet for what it tells Prometheus of the claim, and evaluates the alerts on volumes that fill up.
func (r *rest) statistics(t *testing.T) {
	await(t, 3*time.Minute, "kubelet tells of the volume, and no alert fires", func() error {
		text, err := r.cluster.Kubectl(t.Context(), "get", "--raw", "/api/v1/nodes/node1/proxy/metrics")
		if err != nil {
			return err
		}
		told := map[string]float64{}
		for line := range strings.Lines(text) {
			name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
			kind, labels, _ := strings.Cut(name, "{")
			if ok && strings.Contains(labels, `persistentvolumeclaim="one"`) {
				if told[kind], err = strconv.ParseFloat(value, 64); err != nil {
					return err
				}
			}
		}
		const of = "kubelet_volume_stats_"
		s := mixin.Sample{
			Available: told[of+"available_bytes"], Capacity: told[of+"capacity_bytes"], Used: told[of+"used_bytes"],
			InodesFree: told[of+"inodes_free"], Inodes: told[of+"inodes"], InodesUsed: told[of+"inodes_used"],
		}
		if s.Capacity == 0 || s.Used == 0 {
			return fmt.Errorf("kubelet says %v", told)
		}
		if firing := mixin.Firing([]mixin.Sample{s}); len(firing) > 0 || s.Available < s.Capacity {
			t.Errorf("%q: %v", firing, told)
		}
		return nil
	})
}

// doctor says in healthy containers that they are.
func (r *rest) doctor(t *testing.T) {
	for component, words := range map[string][]string{
		"agent": {"needs no /dev/fuse", "serves", "/dev/shm"},
		"node":  {"its volumes are in order", "registration", "serves"},
	} {
		out, err := r.inside(t, component, "doctor")
		t.Logf("%s:\n%s", component, out)
		if err != nil || strings.Contains(out, "fail") {
			t.Errorf("%s is well, and doctor says %v", component, err)
		}
		for _, word := range words {
			if !strings.Contains(out, word) {
				t.Errorf("%s: doctor does not say %q", component, word)
			}
		}
	}
}

// status calls the worker of the agent's own node local, and no other.
func (r *rest) status(t *testing.T) {
	node := strings.TrimSpace(r.kubectl(t, "get", "pod", "one-worker-0", "-o", "jsonpath={.spec.nodeName}"))
	await(t, 90*time.Second, "status knows the worker", func() error {
		out, err := r.inside(t, "agent", "status")
		if err != nil {
			return err
		}
		want := "over the network"
		if node == "node1" {
			want = "this machine"
		}
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "worker ") && strings.HasSuffix(strings.TrimSpace(line), want) {
				return nil
			}
		}
		return fmt.Errorf("the worker is on %s, and it says %s", node, out)
	})
}

// traceMark tells the traces of this test among the processes of a machine.
const traceMark = "987654321"

// traceAlone has a trace left by its kubectl, without an input that ends.
func (r *rest) traceAlone(t *testing.T) { r.traceLeft(t) }

// traceAloneGone looks for that trace, which has a minute.
func (r *rest) traceAloneGone(t *testing.T) { r.traceGone(t, 90*time.Second) }

// trace has a trace with the input of its kubectl end with that.
func (r *rest) trace(t *testing.T) {
	r.traceLeft(t, "-i")
	r.traceGone(t, 10*time.Second)
}

// traceLeft starts a trace, which says that it follows and tells of a read, and kills its kubectl.
func (r *rest) traceLeft(t *testing.T, flags ...string) {
	t.Helper()
	var mu sync.Mutex // guards said
	var said bytes.Buffer
	out := writer(func(b []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return said.Write(b) })
	args := append([]string{"exec", "-n", namespace}, flags...)
	args = append(args, r.onNode1(t, "agent"), "--", "millrace", "trace", "-n", traceMark)
	cmd := r.cluster.KubectlCommand(t.Context(), args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	heard := func(text string) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(said.String(), text) {
				return fmt.Errorf("it says %q", said.String())
			}
			return nil
		}
	}
	await(t, 20*time.Second, "trace says that it follows", heard("following the requests of all mounts"))
	r.kubectl(t, "exec", "none", "--", "sh", "-c", "cat /one/one/c.txt >/dev/null")
	await(t, 20*time.Second, "trace tells of a read", heard("/one/c.txt"))
	if r.traces(t) == "" {
		t.Error("no process of the trace is seen")
	}
	_ = cmd.Process.Kill()
	_ = in.Close()
	_ = cmd.Wait()
}

// traceGone returns when no process of a trace is left on the node.
func (r *rest) traceGone(t *testing.T, limit time.Duration) {
	t.Helper()
	took := await(t, limit, "trace ends with its kubectl", func() error {
		if left := r.traces(t); left != "" {
			return errors.New(left)
		}
		return nil
	})
	t.Logf("the trace is gone after %v", took.Round(100*time.Millisecond))
}

// traces are the processes of this test's traces on the first node.
func (r *rest) traces(t *testing.T) string {
	t.Helper()
	look := r.cluster.Node("node1").Command(t.Context(), "pgrep", "-af", "^millrace trace -n "+traceMark)
	left, _ := look.Output()
	return string(left)
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// sick has doctor name a socket that is missing, and an agent that hangs.
func (r *rest) sick(t *testing.T) {
	node := r.cluster.Node("node1")
	on := func(command string) {
		t.Helper()
		if out, err := node.Command(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	says := func(component string, words ...string) {
		t.Helper()
		await(t, 30*time.Second, "doctor names "+words[0], func() error {
			out, err := r.inside(t, component, "doctor", "-o", "json")
			if err == nil {
				return fmt.Errorf("doctor ends with 0: %s", out)
			}
			var findings []struct{ Check, Result, Found, Mend string }
			if err := json.Unmarshal([]byte(out), &findings); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			for _, f := range findings {
				lacks := func(word string) bool { return !strings.Contains(f.Found+f.Mend, word) }
				if f.Result == "fail" && !slices.ContainsFunc(words, lacks) {
					return nil
				}
			}
			return fmt.Errorf("doctor says %s", out)
		})
	}
	on("mv /run/millrace/agent.sock /run/millrace/hidden")
	says("agent", "/run/millrace/agent.sock does not answer")
	on("mv /run/millrace/hidden /run/millrace/agent.sock")
	on("cd /var/lib/kubelet/plugins/csi.millrace.io && mv csi.sock hidden")
	says("node", "csi.sock", "kill 1")
	on("cd /var/lib/kubelet/plugins/csi.millrace.io && mv hidden csi.sock")
	on("pkill -STOP -f '[m]illrace agent '")
	t.Cleanup(func() { _ = node.Command(r.ctx, "pkill", "-CONT", "-f", "[m]illrace agent ").Run() })
	says("node", "no agent answers on /run/millrace/attach.sock")
	on("pkill -CONT -f '[m]illrace agent ' || true")
	await(t, time.Minute, "all is well again", func() error {
		_, err := r.inside(t, "node", "doctor")
		return err
	})
	// Doctor left children in the driver's container, which asked mounts of the agent that hung.
	await(t, 20*time.Second, "the driver takes leave of what doctor left", func() error {
		const zombies = `for s in /proc/[0-9]*/status; do grep -qs '^Name:.millrace$' $s && grep -s '^State:.Z' $s; done; true`
		if left, err := node.Command(t.Context(), "sh", "-c", zombies).Output(); err != nil || len(left) > 0 {
			return fmt.Errorf("%w: %s", cmp.Or(err, errors.New("zombies")), left)
		}
		return nil
	})
}
