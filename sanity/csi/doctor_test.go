package csi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/session"
)

// said is an element of what `millrace doctor -o json` says.
type said struct{ Check, Result, Found, Mend string }

// first is the number of the first process of the PID namespace that a process made.
func (n *node) first(starter *session.Process) string {
	n.t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", starter.Pid()))
	n.must("the first process", err)
	return strings.TrimSpace(string(children))
}

// exec is a command of the program as `kubectl exec` starts it: in the PID namespace whose first process was started by
// the one given, and by no process there.
func (n *node) exec(ctx context.Context, starter *session.Process, args ...string) *exec.Cmd {
	n.t.Helper()
	inside := []string{
		"--pid", "--target", n.first(starter), "--",
		"unshare", "--mount", "--propagation", "slave", "--",
		"sh", "-c", `mount -t proc proc /proc && exec "$@"`, "sh", bin,
	}
	cmd := session.Command(ctx, "nsenter", append(inside, args...)...)
	cmd.Env = append(os.Environ(), "MILLRACE_RUNTIME_DIR="+n.dir)
	return cmd
}

// beside runs doctor beside a process.
func (n *node) beside(starter *session.Process) ([]said, error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience())
	defer cancel()
	out, err := n.exec(ctx, starter, "doctor", "-o", "json").Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		n.t.Fatal(err)
	}
	var all, mine []said
	if wrong := json.Unmarshal(out, &all); wrong != nil {
		n.t.Fatalf("%v: %s: %v", err, out, wrong)
	}
	for _, s := range all {
		// Other tests have mounts on this machine, too.
		if (s.Check != "mount" && s.Check != "mounts") || strings.Contains(s.Found, n.dir) {
			mine = append(mine, s)
		}
	}
	return mine, err
}

// healthy fails the test where doctor finds something wrong.
func (n *node) healthy(what string, starter *session.Process, words ...string) {
	n.t.Helper()
	findings, _ := n.beside(starter)
	text := fmt.Sprint(findings)
	for _, s := range findings {
		if s.Result == "fail" {
			n.t.Errorf("%s: %+v", what, s)
		}
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			n.t.Errorf("%s: %q is not said: %s", what, word, text)
		}
	}
}

// sick fails the test where doctor does not name what is wrong.
func (n *node) sick(what string, starter *session.Process, check string, words ...string) {
	n.t.Helper()
	n.eventually(what+" is named", func(context.Context) error {
		findings, err := n.beside(starter)
		if err == nil {
			return errors.New("doctor ends with 0")
		}
		for _, s := range findings {
			named := s.Check == check && s.Result == "fail" && s.Mend != ""
			for _, word := range words {
				named = named && strings.Contains(s.Found+s.Mend, word)
			}
			if named {
				return nil
			}
		}
		return fmt.Errorf("doctor says %+v", findings)
	})
}

// TestDoctorInContainers: beside a driver or an agent that is well doctor says so, and names what is wrong: a socket
// that is missing, an agent that is down, a mount that is dead.
func TestDoctorInContainers(t *testing.T) {
	for _, tool := range []string{"nsenter", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (package util-linux)", tool)
		}
	}
	n := newNode(t)
	contained := []string{"unshare", "--pid", "--fork", "--kill-child", "--", bin}
	n.startAgentOf(contained...)
	n.startPluginOf(contained...)
	n.waitReady()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	n.healthy("the agent", n.serving, "needs no /dev/fuse", "serves 1", n.at("tier"))
	n.healthy("the driver", n.plugin, "its volumes are in order", "serves 1", n.csiSocket())

	hidden := func(path string, sick func()) {
		t.Helper()
		n.must("hiding "+path, os.Rename(path, path+".hidden"))
		sick()
		n.must("showing "+path, os.Rename(path+".hidden", path))
	}
	hidden(n.at("agent.sock"), func() { n.sick("a missing socket", n.serving, "socket", n.at("agent.sock")) })
	hidden(n.attachSocket(), func() { n.sick("a missing socket", n.serving, "volumes", n.attachSocket(), "kill 1") })
	hidden(n.csiSocket(), func() { n.sick("a missing CSI socket", n.plugin, "CSI socket", n.csiSocket(), "kill 1") })

	pod := filepath.Join(n.at("kubelet/pods"), "0c1f-uid", "volumes/x/mount")
	n.must("making a directory", os.MkdirAll(pod, 0o750))
	device, err := mountpoint.Attach(t.Context(), mountpoint.Options{Dir: pod, Source: "test"})
	n.must("mounting", err)
	n.must("killing the mount", device.Close())
	n.sick("a dead mount", n.plugin, "mount", pod, "is dead", "grep 0c1f-uid")
	n.must("unmounting", mountpoint.Detach(pod, mountpoint.Lazily))

	device, err = mountpoint.Attach(t.Context(), mountpoint.Options{Dir: pod, Source: "test"})
	n.must("mounting", err)
	n.sick("a mount that hangs", n.plugin, "mount", pod, "does not answer")
	n.must("unmounting", errors.Join(mountpoint.Detach(pod, mountpoint.Lazily), device.Close()))

	n.serving.Kill()
	n.sick("an agent that is down", n.plugin, "volumes", n.attachSocket(), "component=agent")
	n.sick("a driver that waits for the agent", n.plugin, "driver", "is not ready", "the agent is not running")
	n.startAgentOf(contained...)
	n.waitReady()
	n.must("reading", n.read(n.target("a", "pod")))
	n.healthy("the driver after all", n.plugin)
	n.takeDown("a", "pod")
}

// TestTraceEndsWithExec: a trace in an agent's container says that it follows, and ends with the input that `kubectl
// exec -i` gives it, though nothing empties the pipe that it writes to; without that it says how long it follows.
func TestTraceEndsWithExec(t *testing.T) {
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Skip("needs nsenter (package util-linux)")
	}
	n := newNode(t)
	n.startAgentOf("unshare", "--pid", "--fork", "--kill-child", "--", bin)
	n.startPlugin()
	n.waitReady()
	n.must("staging", n.stage(t.Context(), "a"))
	n.must("publishing", n.publish(t.Context(), "a", "pod"))
	for _, withInput := range []bool{true, false} {
		ctx, cancel := context.WithTimeout(t.Context(), patience())
		trace := n.exec(ctx, n.serving, "trace", "--socket", n.at("agent.sock"))
		said := &logBuffer{}
		trace.Stderr = said
		full, write, err := os.Pipe()
		n.must("a pipe", err)
		trace.Stdout = write
		input, give, err := os.Pipe()
		n.must("a pipe", err)
		if withInput {
			trace.Stdin = input
		}
		n.must("starting", errors.Join(trace.Start(), write.Close(), input.Close()))
		n.eventually("it says that it follows", func(context.Context) error {
			if text := said.String(); !strings.Contains(text, "following the requests of all mounts") ||
				strings.Contains(text, "for 1m0s") == withInput {
				return errors.New(text)
			}
			return nil
		})
		for i := range 2000 {
			_, _ = os.Stat(filepath.Join(n.target("a", "pod"), fmt.Sprintf("missing-%d", i)))
		}
		n.must("ending the input", give.Close())
		if !withInput {
			cancel()
		}
		if err := trace.Wait(); (err == nil) != withInput {
			t.Errorf("with input %v: %v: %s", withInput, err, said.String())
		}
		_ = full.Close()
		cancel()
	}
	n.takeDown("a", "pod")
}
