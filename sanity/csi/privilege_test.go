package csi_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"millrace.io/millrace/sanity/session"
)

// TestLeastPrivilege: an agent without any capability, as a user that is not root, on a file system that is read-only
// but for the tier and the sockets, and one with CAP_SYS_ADMIN alone, which passes files through.
func TestLeastPrivilege(t *testing.T) {
	for _, tool := range []string{"setpriv", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (package util-linux)", tool)
		}
	}
	const nobody = "65534"
	cases := map[string]struct {
		command []string
		passed  bool
	}{
		"none": {[]string{
			"setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups",
			"--bounding-set=-all", "--inh-caps=-all", "--no-new-privs",
		}, false},
		"cap_sys_admin": {[]string{
			"setpriv", "--bounding-set=-all,+sys_admin", "--inh-caps=-all,+sys_admin",
			"--no-new-privs",
		}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			run := n.at("run")
			n.must("making a directory", os.Mkdir(run, 0o700))
			for _, dir := range []string{run, n.at("tier")} {
				if !c.passed {
					n.must("giving a directory away", os.Chown(dir, 65534, 65534))
				}
			}
			// The directories above are root's own, as a host's are.
			n.openPath(n.dir)
			n.attach = filepath.Join(run, "attach.sock")
			n.startReadOnly(c.command, run)
			n.startPlugin()
			n.waitReady()
			n.must("staging", n.stage(t.Context(), "a"))
			n.must("publishing", n.publish(t.Context(), "a", "pod"))
			for range 2 {
				n.must("reading", n.read(n.target("a", "pod")))
			}
			if passed := n.passthroughOpens(filepath.Join(run, "agent.sock")) > 0; passed != c.passed {
				t.Errorf("passed through: %v", passed)
			}
			n.takeDown("a", "pod")
		})
	}
}

// openPath lets all users walk to the directory.
func (n *node) openPath(dir string) {
	n.t.Helper()
	for ; strings.HasPrefix(dir, base); dir = filepath.Dir(dir) {
		n.must("opening a path", os.Chmod(dir, 0o755))
	}
}

// startReadOnly starts the agent by a command that takes privileges away, in a mount namespace of its own where all
// but its two directories is read-only.
func (n *node) startReadOnly(command []string, run string) {
	n.t.Helper()
	script := fmt.Sprintf(`set -e
mount --bind %[1]s %[1]s; mount --bind %[2]s %[2]s
mount -o remount,bind,ro /
mount --bind %[1]s %[1]s; mount --bind %[2]s %[2]s
exec "$@"`, run, n.at("tier"))
	args := append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh"}, command...)
	args = append(args, bin, "agent", "--attach-socket", n.attach, "--socket", filepath.Join(run, "agent.sock"),
		"--tier-dir", n.at("tier"), "--allow-local", n.at("source"))
	p, err := n.work.StartCmd(func() *exec.Cmd {
		cmd := session.Command(n.t.Context(), "unshare", args...)
		cmd.Stderr = n.log
		return cmd
	}())
	n.must("starting an agent", err)
	n.serving = p
}

// passthroughOpens is the agent's counter.
func (n *node) passthroughOpens(socket string) int {
	n.t.Helper()
	out, err := exec.CommandContext(n.t.Context(), bin, "status", "-o", "json", "--socket", socket).CombinedOutput()
	n.must("status: "+string(out), err)
	_, text, _ := strings.Cut(string(out), `"passthroughOpens":`)
	count := 0
	_, err = fmt.Sscan(text, &count)
	n.must("passthroughOpens in "+string(out), err)
	return count
}
