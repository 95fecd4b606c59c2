package fuse

import (
	"cmp"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// deathsToPoison is at how many deaths of its process a request may be in service before it is answered with EIO,
	// where it was served alone at the last, and deathsAnyway where it was served beside others of its kind.
	deathsToPoison = 2
	deathsAnyway   = 4
	// poisonTerm is how long what a request asked is refused to all the first time, termGrowth times longer each time
	// after that up to longestTerm.
	poisonTerm  = 10 * time.Second
	termGrowth  = 6
	longestTerm = 10 * time.Minute
	// poisonMemory is how long after its last term a question is remembered.
	poisonMemory = time.Hour
	// mostSuspects bounds the records of requests, some of which are never sent again.
	mostSuspects = 256
)

// question is what a request asks, whatever process asks it.
type question struct {
	op   uint32
	node uint64
	// subject is a hash of the name of a LOOKUP, and the offset in a directory; 0 for all else, READs among it: where
	// one part of a file ends the process, the next one probably does.
	subject uint64
}

// questionOf takes a request apart.
func questionOf(h inHeader, msg []byte) question {
	q := question{op: h.op, node: h.node}
	switch h.op {
	case opLookup:
		q.subject = nameHash(msg)
	case opReadDir, opReadDirPlus:
		if r, ok := parseRead(msg); ok {
			q.subject = r.offset
		}
	}
	return q
}

// nameHash is the FNV-1a hash of the name of a LOOKUP, the same in every process.
func nameHash(msg []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range msg[inHeaderSize:] {
		if c == 0 {
			break
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// isResent reports whether the kernel sends requests of this kind again to the next process. The others have no answer.
func isResent(op uint32) bool {
	switch op {
	case opForget, opBatchForget, opInterrupt, opInit, opDestroy, opNotifyReply:
		return false
	}
	return true
}

// isRefusable reports whether a request of this kind may be answered with EIO in place of being served. What ends a
// handle is not: the kernel asks for that once, and the handle would be open for ever.
func isRefusable(op uint32) bool { return op != opRelease && op != opReleaseDir }

// term is how long a question is refused that was found to be poison so many times.
func term(convictions uint32) time.Duration {
	d := poisonTerm
	for range max(min(convictions, 8), 1) - 1 {
		d = min(d*termGrowth, longestTerm)
	}
	return d
}

// quarantine keeps requests that were in service when their process died away from those that were not.
//
// The kernel sends them again to the next process, so one that kills what serves it would kill each successor. The
// state has what each worker is serving. A request that was in service at one death is a suspect: suspects are served
// one at a time, so that a second death finds one of them in service. That one is answered with EIO, and what it asked
// is refused to all for a while. Where several were in service, as they take long, their next turns are longer.
// D-173 and D-210 say why.
type quarantine struct {
	state *stateFile
	log   *slog.Logger
	lane  *lane
	// refused is the number of questions in poisons, so that others need no lock.
	refused atomic.Int32

	// mu guards the rest, and what is in the maps.
	mu       sync.Mutex
	suspects map[uint64]*suspect
	poisons  map[question]*poison
}

// suspect is a request that was in service when a process died, by its unique.
type suspect struct {
	unique uint64
	question
	deaths uint32
	saved  record
}

// poison is a question that ended processes.
type poison struct {
	question
	// convictions is how often that was found out, since when the last time.
	convictions uint32
	since       time.Time
	saved       record
	// told says that this process has logged it.
	told bool
}

func newQuarantine(state *stateFile, log *slog.Logger) *quarantine {
	return &quarantine{
		state: state, log: log, lane: processLane,
		suspects: make(map[uint64]*suspect), poisons: make(map[question]*poison),
	}
}

// refuses reports whether the question is poison, and whether that is to be logged.
func (t *quarantine) refuses(q question, now time.Time) (refused, first bool) {
	if t.refused.Load() == 0 {
		return false, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.poisons[q]
	if p == nil {
		return false, false
	}
	// A clock that was put back makes ages that say nothing.
	if age := now.Sub(p.since); age < 0 || age >= term(p.convictions) {
		return false, false
	}
	first = !p.told
	p.told = true
	return true, first
}

// suspect is what is known of a request that the kernel sends again, nil where nothing is.
func (t *quarantine) suspect(unique uint64) *suspect {
	if unique&uniqueResent == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.suspects[unique&^uniqueResent]
}

// convicted reports whether the request is refused, however much later the kernel sends it.
func (s *suspect) convicted() bool { return s.deaths >= deathsAnyway && isRefusable(s.op) }

// acquit forgets a request that was answered.
func (t *quarantine) acquit(s *suspect) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(s)
}

// drop forgets a suspect; mu is held.
func (t *quarantine) drop(s *suspect) {
	if t.suspects[s.unique] == s {
		delete(t.suspects, s.unique)
		t.state.release(s.saved)
	}
}

// load learns from the state what was in service when the last process ended; died says that it did not leave. It
// returns how many requests that were.
func (t *quarantine) load(died bool, now time.Time) (inService int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.loadKept(now); err != nil {
		return 0, err
	}
	var slots []record
	err = t.state.each(recordServing, func(r record) error {
		slots = append(slots, r)
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, r := range slots {
		s := t.state.loadRequest(r)
		if s.unique != 0 && died {
			inService++
			t.accuse(s, t.state.wasBeside(r), now)
		}
		// The workers of this process have slots of their own.
		t.state.release(r)
	}
	t.bound()
	t.refused.Store(int32(len(t.poisons)))
	return inService, nil
}

// loadKept reads the suspects and poisons of before; mu is held.
func (t *quarantine) loadKept(now time.Time) error {
	err := t.state.each(recordSuspect, func(r record) error {
		s := t.state.loadRequest(r)
		t.suspects[s.unique] = s
		return nil
	})
	if err != nil {
		return err
	}
	var old []record
	err = t.state.each(recordPoison, func(r record) error {
		p := t.state.loadPoison(r)
		if age := now.Sub(p.since); age < 0 || age > term(p.convictions)+poisonMemory {
			old = append(old, r)
			return nil
		}
		t.poisons[p.question] = p
		return nil
	})
	for _, r := range old {
		t.state.release(r)
	}
	return err
}

// accuse notes one death more with the request in service, beside other suspects or not; mu is held.
func (t *quarantine) accuse(s *suspect, beside bool, now time.Time) {
	if old := t.suspects[s.unique]; old != nil {
		s.deaths = max(s.deaths, old.deaths)
		t.drop(old)
	}
	if s.deaths++; s.deaths >= deathsToPoison && !beside {
		s.deaths = deathsAnyway
	}
	if s.convicted() {
		t.convict(s.question, now)
	}
	s.saved = t.state.saveRequest(s, recordSuspect)
	t.suspects[s.unique] = s
}

// convict refuses a question from now on; mu is held.
func (t *quarantine) convict(q question, now time.Time) {
	p := t.poisons[q]
	if p == nil {
		p = &poison{question: q}
		t.poisons[q] = p
	}
	t.state.release(p.saved)
	p.convictions++
	p.since, p.told = now, false
	p.saved = t.state.savePoison(p)
}

// bound forgets the oldest suspects and poisons beyond what is kept; mu is held.
func (t *quarantine) bound() {
	suspects := make([]*suspect, 0, len(t.suspects))
	for _, s := range t.suspects {
		suspects = append(suspects, s)
	}
	slices.SortFunc(suspects, func(a, b *suspect) int { return cmp.Compare(b.unique, a.unique) })
	for _, s := range suspects[min(len(suspects), mostSuspects):] {
		t.drop(s)
	}
	poisons := make([]*poison, 0, len(t.poisons))
	for _, p := range t.poisons {
		poisons = append(poisons, p)
	}
	slices.SortFunc(poisons, func(a, b *poison) int { return b.since.Compare(a.since) })
	for _, p := range poisons[min(len(poisons), mostSuspects):] {
		delete(t.poisons, p.question)
		t.state.release(p.saved)
	}
}

// admit notes that the worker serves a request from now on, and reports whether it may: what is poison is answered
// with EIO. One that was in service when a process died waits for the others of its kind.
func (w *worker) admit(h inHeader, msg []byte) bool {
	if !isResent(h.op) {
		return true
	}
	t, q := w.s.quarantine, questionOf(h, msg)
	w.suspect = t.suspect(h.unique)
	refused, first := t.refuses(q, w.start)
	if w.suspect != nil && w.suspect.convicted() && !refused {
		refused, first = true, true
	}
	if refused {
		if first {
			t.log.Error("a request was in service when the process died twice, and is answered with EIO", "op",
				opName(h.op), "path", w.pathOf(h, msg))
		}
		w.replyError(h, syscall.EIO)
		return false
	}
	var deaths uint32
	if w.suspect != nil {
		deaths = w.suspect.deaths
		w.leaveLane = t.lane.enter(w.context(), deaths, func(on bool) { w.s.state.beside(w.slot, on) })
	}
	w.s.state.serving(w.slot, h.unique&^uniqueResent, q, deaths)
	return true
}

// dismiss notes that the worker serves nothing.
func (w *worker) dismiss() {
	w.s.state.serving(w.slot, 0, question{}, 0)
	if w.leaveLane != nil {
		w.leaveLane()
		w.leaveLane = nil
	}
	if w.suspect != nil {
		w.s.quarantine.acquit(w.suspect)
		w.suspect = nil
	}
}

// Offsets in the record of a request, and of a question.
const (
	askedUnique  = 8
	askedNode    = 16
	askedSubject = 24
	askedOp      = 32
	askedDeaths  = 36
	askedSince   = 40
	askedSize    = 48
	// askedBeside is where a request has what a poison has askedSince for.
	askedBeside = askedSince
)

// serving notes in a worker's slot what it serves, nothing where unique is 0. The unique is written last when a request
// begins, and first when it ends.
func (s *stateFile) serving(slot record, unique uint64, q question, deaths uint32) {
	if slot == 0 {
		return
	}
	if unique == 0 {
		s.u64(uint64(slot) + askedUnique).Store(0)
		return
	}
	b := s.bytes(slot)
	putQuestion(b, q, deaths)
	s.u64(uint64(slot) + askedUnique).Store(unique)
}

func putQuestion(b []byte, q question, count uint32) {
	le := binary.LittleEndian
	le.PutUint64(b[askedNode:], q.node)
	le.PutUint64(b[askedSubject:], q.subject)
	le.PutUint32(b[askedOp:], q.op)
	le.PutUint32(b[askedDeaths:], count)
}

// saveRequest keeps a request and returns its record, 0 where there is no room.
func (s *stateFile) saveRequest(r *suspect, kind recordKind) record {
	saved := s.alloc(askedSize)
	if saved == 0 {
		return 0
	}
	b := s.bytes(saved)
	putQuestion(b, r.question, r.deaths)
	binary.LittleEndian.PutUint64(b[askedUnique:], r.unique)
	s.beside(saved, false)
	s.commit(saved, kind)
	return saved
}

func (s *stateFile) loadQuestion(r record) (q question, count uint32) {
	b := s.bytes(r)
	le := binary.LittleEndian
	return question{
		op: le.Uint32(b[askedOp:]), node: le.Uint64(b[askedNode:]), subject: le.Uint64(b[askedSubject:]),
	}, le.Uint32(b[askedDeaths:])
}

func (s *stateFile) loadRequest(r record) *suspect {
	q, deaths := s.loadQuestion(r)
	return &suspect{unique: s.u64(uint64(r) + askedUnique).Load(), question: q, deaths: deaths, saved: r}
}

// beside notes in a worker's slot whether its suspect is served beside others.
func (s *stateFile) beside(slot record, on bool) {
	if slot == 0 {
		return
	}
	value := uint32(0)
	if on {
		value = 1
	}
	s.u32(uint64(slot) + askedBeside).Store(value)
}

func (s *stateFile) wasBeside(slot record) bool {
	return s.u32(uint64(slot)+askedBeside).Load() == 1
}

// savePoison keeps a poison and returns its record, 0 where there is no room.
func (s *stateFile) savePoison(p *poison) record {
	saved := s.alloc(askedSize)
	if saved == 0 {
		return 0
	}
	b := s.bytes(saved)
	putQuestion(b, p.question, p.convictions)
	binary.LittleEndian.PutUint64(b[askedSince:], uint64(p.since.UnixNano()))
	s.commit(saved, recordPoison)
	return saved
}

func (s *stateFile) loadPoison(r record) *poison {
	q, convictions := s.loadQuestion(r)
	since := time.Unix(0, int64(binary.LittleEndian.Uint64(s.bytes(r)[askedSince:])))
	return &poison{question: q, convictions: max(convictions, 1), since: since, saved: r}
}
