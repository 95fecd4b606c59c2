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
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/deaths"
	"millrace.io/millrace/fuse/handover"
)

// lookupOf is the message of a LOOKUP.
func lookupOf(unique uint64, name string) (inHeader, []byte) {
	msg := message(opLookup, unique, rootID, append([]byte(name), 0))
	h, _ := parseHeader(msg)
	return h, msg
}

// dead is the quarantine of the process after one that died, or left, while it served the requests by their uniques,
// and how many it was told were in service.
func dead(t *testing.T, state *stateFile, left bool, serving map[uint64]string) (
	next *stateFile, q *quarantine, inService int,
) {
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
	for n, want := range map[uint32]time.Duration{
		1: poisonTerm, 2: poisonTerm * termGrowth, 4: longestTerm,
		1 << 31: longestTerm,
	} {
		if got := term(n); got != want {
			t.Errorf("after %d convictions: %v, want %v", n, got, want)
		}
	}
}

// TestSuspectsAreServedOneByOne: the next one waits until the first has ended, or is slow.
func TestSuspectsAreServedOneByOne(t *testing.T) {
	q := newLane()
	unmarked := func(bool) {}
	leave := q.enter(t.Context(), 1, unmarked)
	entered := make(chan func(), 1)
	go func() { entered <- q.enter(t.Context(), 1, unmarked) }()
	select {
	case <-entered:
		t.Error("two suspects are served at once")
	case <-time.After(turnTimes[0] / 10):
	}
	next := <-entered
	next()
	next()
	leave()
	q.enter(t.Context(), 1, unmarked)()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	hold := q.enter(t.Context(), 1, unmarked)
	q.enter(ended, 1, unmarked)()
	hold()
	if len(q.place) != 0 || q.waiting != 0 || q.crowd != 0 || len(q.turns) != 0 {
		t.Errorf("an empty lane has %d inside, %d waiting of %d, %d served", len(q.place), q.waiting, q.crowd,
			len(q.turns))
	}
}

// TestLaneIsTheProcess: sessions of one process wait for each other's suspects.
func TestLaneIsTheProcess(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if one, other := newQuarantine(testState(t), log), newQuarantine(testState(t), log); one.lane != other.lane {
		t.Error("each session has a lane of its own: a death finds a suspect of each in service")
	}
}

// TestSuspectsBesideOthers: where several suspects are served at a death, in whatever sessions, none is convicted
// before the fourth; one that is served alone is.
func TestSuspectsBesideOthers(t *testing.T) {
	l := newLane()
	states := []*stateFile{testState(t), testState(t)}
	slots, leave := make([]record, 2), make([]func(), 2)
	for i, state := range states {
		slots[i] = state.saveRequest(&suspect{}, recordServing)
		// The first one's time is over at once; the second has the lane.
		leave[i] = l.enter(t.Context(), 1, func(on bool) { state.beside(slots[i], on) })
		h, msg := lookupOf(uint64(100+2*i), "x")
		state.serving(slots[i], h.unique, questionOf(h, msg), 1)
	}
	for i := range states {
		unique := uint64(100 + 2*i)
		for want := uint32(2); want <= deathsAnyway; want++ {
			next, q, n := dead(t, states[i], false, nil)
			s := q.suspect(unique | uniqueResent)
			if n != 1 || s == nil || s.deaths != want || s.convicted() != (want == deathsAnyway) {
				t.Fatalf("session %d: %d in service; %+v, want %d deaths", i, n, s, want)
			}
			states[i] = next
			again := next.saveRequest(&suspect{}, recordServing)
			next.serving(again, unique, s.question, s.deaths)
			next.beside(again, true)
		}
	}
	leave[1]()
	alone, state := true, testState(t)
	leave[1] = l.enter(t.Context(), 1, func(on bool) { alone = !on })
	if alone {
		t.Error("one that takes long is not beside the next")
	}
	leave[0]()
	if !alone {
		t.Error("one whose company has gone is not alone")
	}
	leave[1]()
	slot := state.saveRequest(&suspect{}, recordServing)
	state.serving(slot, 100, question{op: opOpen, node: 7}, 2)
	if _, q, _ := dead(t, state, false, nil); !q.suspect(100 | uniqueResent).convicted() {
		t.Error("one that was served alone at its third death is served again")
	}
}

// TestManySuspectsHaveShortTurns: what all wait together is bounded, and turns are longer the more processes died.
func TestManySuspectsHaveShortTurns(t *testing.T) {
	for _, c := range []struct {
		crowd  int
		deaths uint32
		want   time.Duration
	}{
		{0, 0, turnTimes[0]},
		{1, 1, turnTimes[0]},
		{20, 1, turnTimes[0]},
		{256, 1, turnTotals[0] / 256},
		{1, 2, turnTimes[1]},
		{256, 2, turnTotals[1] / 256},
		{1, 3, turnTimes[2]},
		{1, 99, turnTimes[2]},
	} {
		if got := (&lane{crowd: c.crowd}).length(c.deaths); got != c.want {
			t.Errorf("a turn of %d at %d deaths: %v, want %v", c.crowd, c.deaths, got, c.want)
		}
	}
	l := newLane()
	l.place <- struct{}{}
	var all sync.WaitGroup
	for range mostSuspects {
		all.Go(func() { l.enter(t.Context(), 1, func(bool) {})() })
	}
	eventually(t, "they wait", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.waiting == mostSuspects && l.length(1) == turnTotals[0]/mostSuspects
	})
	<-l.place
	all.Wait()
	if l.crowd != 0 {
		t.Errorf("the lane is empty, and %d were there", l.crowd)
	}
}

// TestTheConvictedStayRefused: a request in service at two deaths is refused however late the kernel sends it, another
// process's clock and term notwithstanding; a clock that was put back refuses nothing else.
func TestTheConvictedStayRefused(t *testing.T) {
	state, _, _ := dead(t, testState(t), false, map[uint64]string{100: "bad"})
	state, q, _ := dead(t, state, false, map[uint64]string{100: "bad"})
	h, msg := lookupOf(100, "bad")
	if refused, _ := q.refuses(questionOf(h, msg), time.Now().Add(-time.Minute)); refused {
		t.Error("a poison of the future is refused")
	}
	_, q, _ = dead(t, state, false, nil)
	if s := q.suspect(100 | uniqueResent); s == nil || !s.convicted() {
		t.Errorf("the request is served again: %+v", s)
	}
}

// TestEndsAreNotRefused: a RELEASE is served however many processes died with it in service; else its handle would stay
// open for ever.
func TestEndsAreNotRefused(t *testing.T) {
	for _, op := range []uint32{opRelease, opReleaseDir} {
		state := testState(t)
		var q *quarantine
		for range 4 {
			slot := state.saveRequest(&suspect{}, recordServing)
			state.serving(slot, 100, question{op: op, node: 7}, 0)
			state, q, _ = dead(t, state, false, nil)
		}
		refused, _ := q.refuses(question{op: op, node: 7}, time.Now())
		if s := q.suspect(100 | uniqueResent); refused || s == nil || s.convicted() {
			t.Errorf("%s is refused: %v, %+v", opName(op), refused, s)
		}
	}
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
	if err := state.each(recordSuspect, func(record) error { records++; return nil }); err != nil ||
		records > mostSuspects {
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

// TestStartingComesFirst: that a session starts is told before it serves any request, which may end the process.
func TestStartingComesFirst(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(100))
	k := keep(t, source, func(string) {})
	asked := make(chan error, 1)
	go func() {
		_, err := os.Stat(filepath.Join(k.dir, "f"))
		asked <- err
	}()
	client := newLocalClient(source)
	var started, early atomic.Bool
	client.onStat = func(context.Context, string) error {
		if !started.Load() {
			early.Store(true)
		}
		return nil
	}
	dev, err := handover.CopyFile(k.dev)
	if err != nil {
		t.Fatal(err)
	}
	state, err := handover.CopyFile(k.state)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Serve(t.Context(), Config{Client: client, Dir: k.dir, Starting: func() { started.Store(true) }}, dev,
		state)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if !started.Load() || early.Load() {
		t.Errorf("told: %v; served before: %v", started.Load(), early.Load())
	}
	if err := s.Leave(); err != nil {
		t.Error(err)
	}
}

// TestPoisonOfAnotherVolume: a request of one volume that ends the process is answered with EIO, and one of another
// volume that was in service each time is not.
func TestPoisonOfAnotherVolume(t *testing.T) {
	notShort(t)
	one, other := t.TempDir(), t.TempDir()
	write(t, one, patient, pattern(100))
	write(t, other, besides, pattern(100))
	// The kernel knows the file whose opening is deadly.
	k := keep(t, one, func(dir string) { _, _ = os.Stat(filepath.Join(dir, patient)) })
	k.beside = keep(t, other, func(string) {})
	bad, good := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(k.dir, patient))
		bad <- err
	}()
	go func() {
		_, err := os.Stat(filepath.Join(k.beside.dir, besides))
		good <- err
	}()
	stop := k.keepAlive(t, os.Stderr)
	defer stop()
	if err := <-good; err != nil {
		t.Errorf("the other volume's: %v", err)
	}
	if err := <-bad; !errors.Is(err, unix.EIO) {
		t.Errorf("the deadly file: %v", err)
	}
	if died := stop(); died < deathsToPoison || died > deathsAnyway {
		t.Errorf("%d processes died of one request", died)
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

// TestSessionsPauseAfterDeaths: a session of many deaths begins to serve after a while, also where its predecessor died
// while it waited; one that was left does not wait.
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
		pauses, left, idle bool
		want               bool
	}{{pauses: true, want: true}, {}, {pauses: true, left: true}, {pauses: true, idle: true, want: true}} {
		state := testState(t)
		state.saveDeaths(died)
		slot := state.saveRequest(&suspect{}, recordServing)
		if !c.idle {
			state.serving(slot, 4, question{op: opOpen, node: 7}, 0)
		}
		if c.left {
			state.leave()
		}
		next := mustSucceed(t, state)
		s := &Session{state: next, quarantine: newQuarantine(next, slog.New(slog.DiscardHandler))}
		pause, err := s.countDeaths(c.pauses)
		if err != nil || pause > 0 != c.want {
			t.Errorf("%+v: %v, %v", c, pause, err)
		}
		if all := deaths.Pause(died, time.Now()); c.idle && pause >= all {
			t.Errorf("one whose predecessor died while it waited waits %v of %v", pause, all)
		}
	}
	if n := deaths.Count(died, time.Now()); n != deathsKept {
		t.Errorf("%d deaths count", n)
	}
}
