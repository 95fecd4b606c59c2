package sanity_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/session"
)

// progress is progress.sh around a command, a line every second.
func progress(t *testing.T, command ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(time.Minute))
	t.Cleanup(cancel)
	cmd = session.Command(ctx, "./progress.sh", append([]string{"the label", "a while", "--"}, command...)...)
	cmd.Env = append(os.Environ(), "PROGRESS_EVERY=1")
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// exitCode is the exit code of a command that was run.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return exit.ExitCode()
}

// TestProgressPassesOutputAndExitCode: the streams stay apart, and the first and last lines are there.
func TestProgressPassesOutputAndExitCode(t *testing.T) {
	cmd, stdout, stderr := progress(t, "sh", "-c", "echo out; echo err >&2; exit 7")
	if code := exitCode(t, cmd.Run()); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	want := regexp.MustCompile(`\Athe label \(a while\) \.\.\.\nout\nthe label: failed after \d+ s \(exit code 7\)\n\z`)
	if !want.MatchString(stdout.String()) || stderr.String() != "err\n" {
		t.Errorf("stdout:\n%s\nstderr:\n%s", stdout, stderr)
	}
}

// TestProgressIsNeverSilent: a command that prints nothing ends once three lines say that it goes on.
func TestProgressIsNeverSilent(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	file, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	const line = "^the label: [0-9]* s (a while)$"
	const until = `until [ "$(grep -c "$2" "$1")" -ge 3 ]; do sleep 0.1; done`
	cmd, _, stderr := progress(t, "sh", "-c", until, "sh", out, line)
	cmd.Stdout = file
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, stderr)
	}
}

// TestProgressTakesABuildsReport: the names of packages are counted instead of printed, and errors are printed once.
func TestProgressTakesABuildsReport(t *testing.T) {
	module := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":    "module example.org/m\n\ngo 1.26\n",
		"main.go":   "package main\n\nimport _ \"example.org/m/part\"\n\nfunc main() {}\n",
		"part/p.go": "package part\n",
		"bad/b.go":  "package bad\n\nvar x int = \"text\"\n",
	} {
		file := filepath.Join(module, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("progress.sh")
	if err != nil {
		t.Fatal(err)
	}
	build := func(packages string) (string, string, int) {
		cmd, stdout, stderr := progress(t, "go", "build", "-o", os.DevNull, packages)
		cmd.Path, cmd.Dir = script, module
		code := exitCode(t, cmd.Run())
		return stdout.String(), stderr.String(), code
	}
	if stdout, stderr, code := build("./part"); code != 0 || strings.Contains(stdout+stderr, "example.org") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if _, stderr, code := build("./bad"); code != 1 || !strings.Contains(stderr, "b.go:3") {
		t.Errorf("a build that fails: exit code %d, stderr:\n%s", code, stderr)
	}
	if _, stderr, code := build("./none"); code != 1 || strings.Count(stderr, "directory not found") != 1 {
		t.Errorf("a package that is not there: exit code %d, stderr:\n%s", code, stderr)
	}
}

// TestProgressPassesSignalsOn: the command cleans up and its exit code counts; what it left behind is killed.
func TestProgressPassesSignalsOn(t *testing.T) {
	signals := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	for _, signal := range signals {
		// What was ignored before, as nohup has it, children would ignore too.
		heard := make(chan os.Signal, 1)
		ossignal.Notify(heard, signal)
		defer ossignal.Stop(heard)
		t.Run(signal.String(), func(t *testing.T) {
			mark := filepath.Join(t.TempDir(), "mark")
			ready := mark + ".ready"
			// The child ignores all signals but the last one.
			cmd, stdout, stderr := progress(t, "sh", "-c",
				`(trap '' INT TERM HUP; exec tail -f "$1") & trap 'echo cleaned; exit 3' INT TERM HUP; : >"$1"; : >"$2"; while :; do sleep 0.1; done`,
				"sh", mark, ready)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for _, err := os.Stat(ready); err != nil; _, err = os.Stat(ready) {
				if t.Context().Err() != nil {
					t.Fatal(t.Context().Err())
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if code := exitCode(t, cmd.Wait()); code != 3 || strings.Count(stdout.String(), "cleaned\n") != 1 {
				t.Errorf("exit code %d, want 3\n%s%s", code, stdout, stderr)
			}
			if !strings.Contains(stdout.String(), "the label: stopped after ") {
				t.Errorf("stdout:\n%s", stdout)
			}
			if pids := session.PidsWithArgument(mark); len(pids) > 0 {
				t.Errorf("processes %v are left", pids)
			}
		})
	}
}

// TestProgressNamesWrongUse: what is missing is said, and nothing runs.
func TestProgressNamesWrongUse(t *testing.T) {
	out, err := session.Run(t.Context(), pace.Limit(10*time.Second), "./progress.sh", "label", "a while", "true")
	if err == nil || !strings.Contains(out.Stderr, "LABEL ESTIMATE -- COMMAND") {
		t.Errorf("error %v, stderr %q", err, out.Stderr)
	}
}
