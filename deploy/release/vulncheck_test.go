package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestVulncheck has the last line tell what was found from what was not looked for, and the exit code with it.
func TestVulncheck(t *testing.T) {
	for _, c := range []struct {
		says string
		code int
		last string
	}{
		{"exit 0", 0, "vulncheck: OK: "},
		{"echo 'Vulnerability #1: GO-1'; exit 3", 3, "vulncheck: FOUND: "},
		{"echo 'govulncheck: fetching vulnerabilities: no such host' >&2; exit 1", 0, "vulncheck: NOT RUN: "},
		{"echo 'govulncheck: no such package' >&2; exit 1", 1, "vulncheck: FAILED: "},
	} {
		out, err := exec.CommandContext(t.Context(), "./vulncheck.sh", "sh", "-c", c.says).Output()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if last := lines[len(lines)-1]; code != c.code || !strings.HasPrefix(last, c.last) {
			t.Errorf("%s: exit code %d, the last line is %q", c.says, code, last)
		}
		if c.last == "vulncheck: NOT RUN: " && !strings.Contains(string(out), "(no such host)") {
			t.Errorf("why is not told: %s", out)
		}
	}
}
