package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// runScript runs a shell script as the command of a ring and returns what was printed.
func runScript(t *testing.T, script string, reasons bool) (output string, code int) {
	t.Helper()
	var out bytes.Buffer
	code, err := run(settings{
		name: "unit", needs: "Go", takes: "no time", reasons: reasons, silence: 500 * time.Millisecond,
		patience: time.Second, command: []string{"sh", "-c", script},
	}, &out)
	if err != nil {
		t.Error(err)
	}
	return out.String(), code
}

// TestSilence checks that a silent command's tests are named while they run, not while they wait for their turn, and no
// longer.
func TestSilence(t *testing.T) {
	out, code := runScript(t, `
		echo '{"Action":"start","Package":"millrace.io/millrace/fuse"}' >>EVENTS
		echo '{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"millrace.io/millrace/fuse","Test":"TestRead"}' >>EVENTS
		echo '{"Time":"2025-01-01T00:00:00Z","Action":"run","Package":"millrace.io/millrace/fuse","Test":"TestTurn"}' >>EVENTS
		echo '{"Action":"pause","Package":"millrace.io/millrace/fuse","Test":"TestTurn"}' >>EVENTS
		printf '{"Time":"2026-01-01T00:00:00Z","Action":"run","Package":"millrace.io/' >>EVENTS
		printf 'millrace/fuse","Test":"TestRead/cold"}\n' >>EVENTS
		sleep 2
		echo 'DONE 1 tests in 2s'; exit 3`, false)
	if code != 3 {
		t.Errorf("exit code %d, want the command's own: 3", code)
	}
	for _, want := range []string{
		"make unit: needs Go; takes no time\n", "fuse TestRead/cold for ",
		"; 0 packages done\n",
	} {
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
	if want := "skipped, by reason:\n     2  needs root\n     1  no reason was given\nDONE 3 tests"; code != 0 ||
		!strings.Contains(out, want) {
		t.Errorf("exit code %d, %q is missing in:\n%s", code, want, out)
	}
}

// TestOrderToEnd checks that nothing of a run is left when it was told to end, not even what heeds no signal.
func TestOrderToEnd(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	ended := make(chan int, 1)
	go func() {
		code, _ := run(settings{name: "unit", silence: time.Second, patience: time.Second, command: []string{"sh", "-c", `
			sh -c 'trap "" TERM; echo $$ >>` + pids + `; while :; do sleep 0.1; done' &
			echo $$ >>` + pids + `
			wait; sleep 60`}}, io.Discard)
		ended <- code
	}()
	var wrote []string
	for end := time.Now().Add(pace.Limit(10 * time.Second)); len(wrote) < 2; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(pids)
		wrote = strings.Fields(string(b))
		if time.Now().After(end) {
			t.Fatal("the command did not start")
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code == 0 {
		t.Error("a run that was told to end has the exit code 0")
	}
	for _, pid := range wrote {
		if n, err := strconv.Atoi(pid); err != nil || !gone(n) {
			t.Errorf("process %s is left: %v", pid, err)
		}
	}
}

// gone reports whether a process has ended, waiting a moment for one that was just killed.
func gone(pid int) bool {
	for end := time.Now().Add(pace.Limit(5 * time.Second)); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return true
		}
	}
	return false
}

// TestNoSleepAtTheEnd checks that test binaries do not sleep at their end, unless the user says how the detector works.
func TestNoSleepAtTheEnd(t *testing.T) {
	if got := environment([]string{"A=b"}); !slices.Equal(got, []string{"A=b", "GORACE=atexit_sleep_ms=0"}) {
		t.Error(got)
	}
	if got := environment([]string{"GORACE=halt_on_error=1"}); !slices.Equal(got, []string{"GORACE=halt_on_error=1"}) {
		t.Error(got)
	}
}
