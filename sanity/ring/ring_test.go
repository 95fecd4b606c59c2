package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// runScript runs a shell script as the command of a ring and returns what was printed.
func runScript(t *testing.T, script string, reasons bool) (output string, code int) {
	t.Helper()
	var out bytes.Buffer
	code, err := run(settings{
		name: "unit", needs: "Go", takes: "no time", reasons: reasons, silence: 500 * time.Millisecond,
		command: []string{"sh", "-c", script},
	}, &out)
	if err != nil {
		t.Error(err)
	}
	return out.String(), code
}

// TestSilence checks that a silent command's tests are named while they run, and no longer.
func TestSilence(t *testing.T) {
	out, code := runScript(t, `
		echo '{"Action":"start","Package":"millrace.io/millrace/fuse"}' >>EVENTS
		echo '{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"millrace.io/millrace/fuse","Test":"TestRead"}' >>EVENTS
		printf '{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"millrace.io/' >>EVENTS
		printf 'millrace/fuse","Test":"TestRead/cold"}\n' >>EVENTS
		sleep 2
		echo 'DONE 1 tests in 2s'; exit 3`, false)
	if code != 3 {
		t.Errorf("exit code %d, want the command's own: 3", code)
	}
	for _, want := range []string{"make unit: needs Go; takes no time\n", "fuse TestRead/cold for ", "; 0 packages done\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	if !strings.HasSuffix(out, "DONE 1 tests in 2s\n") {
		t.Errorf("the command's summary is not the last line of:\n%s", out)
	}
}

// TestReasons checks that each reason is counted, and that a test without one is told.
func TestReasons(t *testing.T) {
	out, code := runScript(t, `
		for n in 1 2; do
			printf '%s\n' '{"Action":"output","Package":"p","Test":"T'$n'","Output":"    a_test.go:12: needs root\n"}' >>EVENTS
			printf '%s\n' '{"Action":"output","Package":"p","Test":"T'$n'","Output":"--- SKIP: T (0.00s)\n"}' >>EVENTS
			printf '%s\n' '{"Action":"skip","Package":"p","Test":"T'$n'"}' >>EVENTS
		done
		printf '%s\n' '{"Action":"skip","Package":"p","Test":"T3"}' >>EVENTS
		echo 'DONE 3 tests, 3 skipped in 2s'`, true)
	if want := "skipped, by reason:\n     2  needs root\n     1  no reason was given\nDONE 3 tests"; code != 0 || !strings.Contains(out, want) {
		t.Errorf("exit code %d, %q is missing in:\n%s", code, want, out)
	}
}
