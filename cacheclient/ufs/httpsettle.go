package ufs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
)

const (
	// settleHeads is how many heads are asked for to see whether validators alternate, and changedHeads after how many
	// a file whose time is another counts as changed.
	settleHeads, changedHeads = 6, 3
	// settleBodies is how many bodies are asked for to compare them.
	settleBodies = 8
	// mostCompared is the size up to which bodies are compared, and mostNamed that of files which their content names:
	// each part of one is confirmed by reading the file.
	mostCompared, mostNamedBytes = 1 << 30, mostCounted
	// neverAgain is how many ETags, no two of them alike, say that a server makes a new one for each answer.
	neverAgain = 3
)

// settleAnswer is called when an answer had other validators than the version. It reports whether they name the same
// content: answers of servers behind one name, which come and go while the content stays. From then on only what
// agrees counts for the file. Where that is the content alone, the version is named by it from then on. A file that
// really changed does not show its former validators again. whole says that the bytes are all of the file, which are
// no mix where the server tells the present for the time of the file. D-193 and D-220 say why.
func (s *httpStore) settleAnswer(ctx context.Context, r request, want cacheclient.Info, seen head, whole bool) bool {
	before := s.trustOf(want.Path)
	if s.fixed || before >= trustContent || seen.dir || seen.size >= 0 && seen.size != want.Size {
		return false
	}
	leave, err := s.turns.enter(ctx, want.Path)
	if err != nil {
		return false
	}
	defer leave()
	if t := s.trustOf(want.Path); t != before {
		// Another has settled it meanwhile.
		_, named := s.named.Get(want.ID)
		return t == trustTime && seen.shows(recorded(want), t) || t == trustContent && named
	}
	return s.settleNow(ctx, r, want, seen, whole, before)
}

// settleNow is settle for one caller at a time.
func (s *httpStore) settleNow(
	ctx context.Context, r request, want cacheclient.Info, seen head, whole bool, t trust,
) bool {
	was := recorded(want)
	answers, back := []head{seen}, false
	for i := 0; i < settleHeads && !back; i++ {
		h, err := s.client.byGet(ctx, r)
		if err != nil || h.dir || h.size != want.Size {
			return false
		}
		back = h.shows(was, t)
		answers = append(answers, h)
		if i == changedHeads && !timesAgree(was, answers) {
			break
		}
	}
	enough := bothAgree
	if !back {
		if enough = manyAgree; !eachAnother(was, answers) {
			return s.noticeClock(ctx, r, want.Path, answers) && whole
		}
	}
	agreed := timesAgree(was, answers)
	if most := int64(mostCompared); want.Size > most || !agreed && want.Size > mostNamedBytes {
		return false
	}
	sum, same := s.sameBytes(ctx, r, want, enough)
	switch {
	case !same:
		return false
	case agreed:
		s.fallBack(want.Path, trustTime, "validate time",
			"its answers give one file several ETags, as servers behind one "+
				"name do: size and time tell versions of such a file apart from now on (option validate=time)")
		return true
	}
	s.fallBack(want.Path, trustContent, "validate content",
		"its answers give one file several ETags and times: such a "+
			"file is read to know whether it changed from now on (option validate=content)")
	s.named.Add(want.ID, keyContent+hex.EncodeToString([]byte(sum)))
	return true
}

// eachAnother reports whether no two answers have one ETag, although all tell the time of the version, and one at
// which nothing is being written.
func eachAnother(was validators, answers []head) bool {
	etags := map[string]bool{}
	for _, h := range answers {
		if h.etag == "" || etags[h.etag] || h.young() {
			return false
		}
		etags[h.etag] = true
	}
	return len(answers) >= neverAgain && timesAgree(was, answers)
}

// noticeClock reports whether the server tells its clock for the time of a file: a second later both are another.
func (s *httpStore) noticeClock(ctx context.Context, r request, path string, answers []head) bool {
	first := answers[len(answers)-1]
	if !first.tellsClock() {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(1100 * time.Millisecond):
	}
	h, err := s.client.byGet(ctx, r)
	clock := err == nil && h.tellsClock() && h.modTime.After(first.modTime) && h.size == first.size
	if clock {
		s.fallBack(path, trustContent, "validate clock",
			"it tells the present for the time of a file, and no ETag: such a "+
				"file is read to know whether it changed from now on (option validate=content)")
	}
	return clock
}

// tellsClock reports whether the time of the file may be the server's clock, and no ETag tells more.
func (h head) tellsClock() bool {
	return h.etag == "" && !h.modTime.IsZero() && !h.date.IsZero() && !h.modTime.Before(h.date)
}

// timesAgree reports whether all answers tell the time of the version.
func timesAgree(was validators, answers []head) bool {
	if was.modTime.IsZero() {
		return false
	}
	for _, h := range answers {
		if h.modTime.IsZero() || !h.modTime.Equal(was.modTime) {
			return false
		}
	}
	return true
}

// bothAgree and manyAgree tell when enough bodies of the same bytes have come: of answers with the validators of the
// version and of others, or of others alone.
func bothAgree(agree, differ int) bool { return agree > 0 && differ > 0 }
func manyAgree(agree, differ int) bool { return agree+differ >= neverAgain }

// sameBytes reports whether the bytes of answers are the same from the first to the last, whatever their validators,
// until there are enough of them, and returns their sum. Samples would take two versions for one. D-222 says why.
func (s *httpStore) sameBytes(
	ctx context.Context, r request, want cacheclient.Info, enough func(agree, differ int) bool,
) (first string, same bool) {
	if want.Size == 0 {
		return string(sha256.New().Sum(nil)), true
	}
	span := http.Header{"Range": {fmt.Sprintf("bytes=0-%d", want.Size-1)}}
	agree, differ := 0, 0
	for i := 0; i < settleBodies && !enough(agree, differ); i++ {
		sum := sha256.New()
		n, h, err := s.pass(ctx, r, span, want.Size, sum)
		if err != nil || n != want.Size {
			return "", false
		}
		if h.shows(recorded(want), trustAll) {
			agree++
		} else {
			differ++
		}
		got := string(sum.Sum(nil))
		if first == "" {
			first = got
		}
		if got != first {
			return "", false
		}
	}
	return first, enough(agree, differ)
}

// turns has one caller at a time for each path.
type turns struct {
	// mu guards held.
	mu   sync.Mutex
	held map[string]chan struct{}
}

// enter waits for the turn of a caller, at whose end leave is to be called.
func (q *turns) enter(ctx context.Context, path string) (leave func(), err error) {
	for {
		ended, mine := q.take(path)
		if mine {
			return func() { q.leave(path) }, nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// What the other found out took its time.
		cacheclient.Heard(ctx)
	}
}

// take returns what is closed at the end of the present turn, and whether the turn is the caller's.
func (q *turns) take(path string) (ended <-chan struct{}, mine bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if held, taken := q.held[path]; taken {
		return held, false
	}
	if q.held == nil {
		q.held = map[string]chan struct{}{}
	}
	q.held[path] = make(chan struct{})
	return nil, true
}

func (q *turns) leave(path string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.held[path])
	delete(q.held, path)
}
