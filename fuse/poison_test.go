package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/deaths"
)

// lookupOf is the message of a LOOKUP.
func lookupOf(unique uint64, name string) (inHeader, []byte) {
	msg := message(opLookup, unique, rootID, append([]byte(name), 0))
	h, _ := parseHeader(msg)
	return h, msg
}

// dead is the quarantine of the process after one that died, or left, while it served the requests by their uniques,
// and how many it was told were in service.
func dead(t *testing.T, state *stateFile, left bool, serving map[uint64]string) (next *stateFile, q *quarantine, inService int) {
	t.Helper()
	for unique, name := range serving {
		slot := state.saveRequest(&suspect{}, recordServing)
		h, msg := lookupOf(unique, name)
		state.serving(slot, h.unique, questionOf(h, msg), 0)
	}
	// One that has ended its request counts for nothing.
	idle := state.saveRequest(&suspect{}, recordServing)
	state.serving(idle, 999, question{op: opOpen}, 0)
	state.serving(idle, 0, question{}, 0)
	if left {
		state.leave()
	}
	next = mustSucceed(t, state)
	q = newQuarantine(next, slog.New(slog.DiscardHandler))
	inService, err := q.load(next.tookOver(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return next, q, inService
}

// TestTwoDeathsAreOneTooMany: what was in service at two deaths is refused, what was at one is served alone, and what
// was answered is forgotten.
func TestTwoDeathsAreOneTooMany(t *testing.T) {
	state, q, n := dead(t, testState(t), false, map[uint64]string{100: "bad", 102: "good", 104: "other"})
	if n != 3 || q.suspect(100|uniqueResent) == nil || q.suspect(100) != nil || q.suspect(999|uniqueResent) != nil {
		t.Fatalf("%d in service; suspects %v", n, q.suspects)
	}
	q.acquit(q.suspect(102 | uniqueResent))
	// The second process served two of them, of which one was answered, and a new request.
	state, q, n = dead(t, state, false, map[uint64]string{100: "bad", 200: "new"})
	_, badMsg := lookupOf(100, "bad")
	badHeader, _ := parseHeader(badMsg)
	bad := questionOf(badHeader, badMsg)
	if refused, first := q.refuses(bad, time.Now()); n != 2 || !refused || !first {
		t.Errorf("%d in service; refused %v, to be told %v", n, refused, first)
	}
	if refused, first := q.refuses(bad, time.Now()); !refused || first {
		t.Error("it is told twice, or refused once")
	}
	for _, name := range []string{"good", "other", "new"} {
		h, msg := lookupOf(1, name)
		if refused, _ := q.refuses(questionOf(h, msg), time.Now()); refused {
			t.Errorf("%s is refused", name)
		}
	}
	if refused, _ := q.refuses(bad, time.Now().Add(poisonTerm)); refused {
		t.Error("it is refused for ever")
	}
	// The third leaves, with requests that hang: that is no death.
	_, q, n = dead(t, state, true, map[uint64]string{104: "other", 200: "new"})
	if n != 0 || q.suspect(200|uniqueResent) == nil {
		t.Errorf("%d in service at no death; suspects %v", n, q.suspects)
	}
	if refused, first := q.refuses(bad, time.Now()); !refused || !first {
		t.Error("the next process does not know the poison")
	}
}

func TestTerms(t *testing.T) {
	for n, want := range map[uint32]time.Duration{1: poisonTerm, 2: poisonTerm * termGrowth, 4: longestTerm, 1 << 31: longestTerm} {
		if got := term(n); got != want {
			t.Errorf("after %d convictions: %v, want %v", n, got, want)
		}
	}
}

// TestSuspectsAreServedOneByOne: the next one waits until the first has ended, or is slow.
func TestSuspectsAreServedOneByOne(t *testing.T) {
	q := newQuarantine(testState(t), slog.New(slog.DiscardHandler))
	leave := q.enter(t.Context())
	entered := make(chan func(), 1)
	go func() { entered <- q.enter(t.Context()) }()
	select {
	case <-entered:
		t.Error("two suspects are served at once")
	case <-time.After(laneTime / 10):
	}
	next := <-entered
	next()
	next()
	leave()
	q.enter(t.Context())()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	hold := q.enter(t.Context())
	q.enter(ended)()
	hold()
}

// TestSuspectsAreBounded: requests that are never sent again do not fill the state.
func TestSuspectsAreBounded(t *testing.T) {
	state := testState(t)
	for round := range 3 {
		serving := make(map[uint64]string)
		for i := range mostSuspects {
			serving[uint64(1000*round+2*i+2)] = fmt.Sprint(round, i)
		}
		var q *quarantine
		if state, q, _ = dead(t, state, false, serving); len(q.suspects) > mostSuspects {
			t.Errorf("%d suspects", len(q.suspects))
		}
	}
	records := 0
	if err := state.each(recordSuspect, func(record) error { records++; return nil }); err != nil || records > mostSuspects {
		t.Errorf("%d records, %v", records, err)
	}
}

// TestPoison: a file whose OPEN ends the process is answered with EIO by the third one, told once in the log with its
// path; readers of other files see a pause.
func TestPoison(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	write(t, source, "sub/"+deadly, pattern(100))
	write(t, source, "good", pattern(100))
	k := keep(t, source, func(string) {})
	var log logBuffer
	stop := k.keepAlive(t, &log)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(k.dir, "sub", deadly))
		ended <- err
	}()
	for open := true; open; {
		if got, err := os.ReadFile(filepath.Join(k.dir, "good")); err != nil || !bytes.Equal(got, pattern(100)) {
			t.Fatalf("another file: %d bytes, %v", len(got), err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, unix.EIO) {
				t.Errorf("the deadly file: %v", err)
			}
			open = false
		default:
		}
	}
	if died := stop(); died != deathsToPoison {
		t.Errorf("%d processes died of one request", died)
	}
	const told = "a request was in service when the process died twice"
	if text := log.String(); strings.Count(text, told) != 1 || !strings.Contains(text, "/sub/"+deadly) {
		t.Errorf("the log:\n%s", text)
	}
}

// keepAlive serves with one process after the other, until stop, which returns how many died by themselves.
func (k *kept) keepAlive(t *testing.T, log io.Writer) (stop func() int) {
	t.Helper()
	cmd, ending, died := k.start(t, log), make(chan struct{}), 0
	var keeping sync.WaitGroup
	var mu sync.Mutex // guards cmd
	keeping.Go(func() {
		for {
			_ = cmd.Wait()
			select {
			case <-ending:
				return
			default:
			}
			died++
			next := k.start(t, log)
			mu.Lock()
			cmd = next
			select {
			case <-ending:
				_ = next.Process.Kill()
			default:
			}
			mu.Unlock()
		}
	})
	return sync.OnceValue(func() int {
		close(ending)
		mu.Lock()
		_ = cmd.Process.Kill()
		mu.Unlock()
		keeping.Wait()
		return died
	})
}

// TestSessionsPauseAfterDeaths: a session of many deaths begins to serve after a while; one that was left does not
// wait.
func TestSessionsPauseAfterDeaths(t *testing.T) {
	state := testState(t)
	died := make([]time.Time, 0, deathsKept)
	for i := range deathsKept {
		died = append(died, time.Now().Add(-time.Duration(deathsKept-i)*time.Second))
	}
	state.saveDeaths(died[:5])
	if got := state.deaths(); len(got) != 5 || !got[4].Equal(died[4].Round(0)) {
		t.Errorf("%v came back as %v", died[:5], got)
	}
	for _, c := range []struct {
		pauses, left bool
		want         bool
	}{{true, false, true}, {false, false, false}, {true, true, false}} {
		state := testState(t)
		state.saveDeaths(died)
		slot := state.saveRequest(&suspect{}, recordServing)
		state.serving(slot, 4, question{op: opOpen, node: 7}, 0)
		if c.left {
			state.leave()
		}
		next := mustSucceed(t, state)
		s := &Session{state: next, quarantine: newQuarantine(next, slog.New(slog.DiscardHandler))}
		if pause, err := s.countDeaths(c.pauses); err != nil || pause > 0 != c.want {
			t.Errorf("%+v: %v, %v", c, pause, err)
		}
	}
	if n := deaths.Count(died, time.Now()); n != deathsKept {
		t.Errorf("%d deaths count", n)
	}
}
