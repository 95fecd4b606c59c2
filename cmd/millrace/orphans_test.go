package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/pace"
)

// reaping has this process be given orphans, as the first process of a container is, and take leave of them until the
// test ends.
func reaping(t *testing.T, grace time.Duration) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reaping sync.WaitGroup
	reaping.Go(func() { reapOrphans(ctx, grace) })
	t.Cleanup(func() {
		cancel()
		reaping.Wait()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
}

// TestOrphansAreReaped leaves processes behind, as doctor does, some of which end at once and one later.
func TestOrphansAreReaped(t *testing.T) {
	reaping(t, 50*time.Millisecond)
	var orphans []string
	for _, life := range []string{"0", "0", "0.3"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "sleep "+life+" >/dev/null & echo $!").Output()
		if err != nil {
			t.Fatal(err)
		}
		orphans = append(orphans, strings.TrimSpace(string(out)))
	}
	deadline := time.Now().Add(pace.Limit(5 * time.Second))
	for _, pid := range orphans {
		for {
			_, err := os.Stat("/proc/" + pid)
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				text, _ := os.ReadFile("/proc/" + pid + "/stat")
				t.Fatalf("the orphan stays: %s", text)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// TestExitStatusIsNotStolen starts children as a driver that may not mount by itself starts fusermount3: each exit
// status comes to the call that waits for it, also when that is late.
func TestExitStatusIsNotStolen(t *testing.T) {
	reaping(t, time.Minute)
	exit := func(want int, late time.Duration) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "exit "+strconv.Itoa(want))
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		time.Sleep(late)
		err := cmd.Wait()
		var exited *exec.ExitError
		if !errors.As(err, &exited) || exited.ExitCode() != want {
			t.Errorf("the exit status %d is told as: %v", want, err)
		}
	}
	var waiting sync.WaitGroup
	for i := range 20 {
		waiting.Go(func() { exit(1+i, 0) })
	}
	waiting.Go(func() { exit(42, 300*time.Millisecond) })
	waiting.Wait()
}

// TestReadStat reads names as processes may give them to themselves.
func TestReadStat(t *testing.T) {
	rest := " 5 5 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2"
	for text, want := range map[string]child{
		"12 (sh) Z 1" + rest:                {12, "98765"},
		"12 (a) Z 1 (b)) Z 1" + rest:        {12, "98765"},
		"12 (sleep 1) Z 1 5":                {},
		"":                                  {},
		"12 (Z 1 5 5 0 -1 4194304) S 7 1 2": {},
	} {
		c, parent, state := readStat([]byte(text))
		if c != want || want.pid != 0 && (parent != 1 || state != zombie) {
			t.Errorf("%q is %+v of %d in the state %q", text, c, parent, state)
		}
	}
}

// TestOrphansGrace has a child be left alone for the grace, and one with the id of an earlier one for all of it.
func TestOrphansGrace(t *testing.T) {
	// There is no such child: to wait for it does nothing.
	const none = 1 << 30
	old, late := child{none, "1"}, child{none, "2"}
	known := map[child]time.Time{old: time.Now().Add(-time.Minute)}
	left := reapOlder(known, []child{old, late}, time.Second)
	if _, stays := left[late]; len(left) != 1 || !stays {
		t.Errorf("left alone are %v", left)
	}
	if again := reapOlder(left, []child{late}, time.Hour); again[late] != left[late] {
		t.Errorf("it begins anew: %v, %v", again, left)
	}
	if left = reapOlder(left, nil, time.Hour); len(left) > 0 {
		t.Errorf("one that has gone is known: %v", left)
	}
}
