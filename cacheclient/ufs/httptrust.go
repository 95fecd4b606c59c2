package ufs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"millrace.io/millrace/cacheclient"
)

// Values of the option validate.
const (
	validateAuto    = "auto"
	validateETag    = "etag"
	validateSize    = "size"
	validateContent = "content"
)

// setTrust reads the option validate.
func (s *httpStore) setTrust() error {
	s.fixed = s.opt.Validate != validateAuto && s.opt.Validate != ""
	switch s.opt.Validate {
	case "", validateAuto, validateETag:
	case validateTime:
		s.trusted.Store(int32(trustTime))
	case validateSize:
		s.trusted.Store(int32(trustSize))
	case validateContent:
		s.trusted.Store(int32(trustContent))
		s.whole = true
	default:
		return fmt.Errorf("option validate: %q is none of %s, %s, %s, %s and %s", s.opt.Validate, validateAuto, validateETag,
			validateTime, validateSize, validateContent)
	}
	return nil
}

func (s *httpStore) trust() trust { return trust(s.trusted.Load()) }

// file describes a file that has this head.
func (s *httpStore) file(ctx context.Context, r request, path string, h head) (cacheclient.Info, error) {
	info := cacheclient.Info{Path: path, Size: h.size, ModTime: h.modTime, Version: h.version(s.trust())}
	if h.size >= 0 && !s.needsContent(h) {
		return info, nil
	}
	size, version, err := s.byContent(ctx, r, h)
	if err != nil {
		return cacheclient.Info{}, err
	}
	info.Size = size
	if s.needsContent(h) || h.size < 0 {
		info.Version = version
	}
	return info, nil
}

// needsContent reports whether nothing but the content tells this version from the next.
func (s *httpStore) needsContent(h head) bool {
	switch s.trust() {
	case trustContent:
		return h.size != 0
	case trustAll:
		if h.none() && h.size != 0 && !s.fixed {
			s.notes.tell("none", fmt.Sprintf("it tells neither ETag nor time of files, so that they are read to know whether "+
				"they changed: all of them up to %d MiB, samples above (option validate)", wholeContent>>20))
			return true
		}
	}
	return false
}

const (
	// settleHeads is how many heads are asked for to see whether validators alternate, and changedHeads after how many
	// a file whose time is another counts as changed.
	settleHeads, changedHeads = 6, 3
	// settleBodies is how many bodies are asked for to compare them, and settleBytes how much of each is read at its
	// beginning, its middle and its end.
	settleBodies, settleBytes = 8, 1 << 20
	// comparedWhole is the size up to which that is all of a file.
	comparedWhole = 3 * settleBytes
	// neverAgain is how many ETags, no two of them alike, say that a server makes a new one for each answer.
	neverAgain = 3
)

// settle is called when an answer had other validators than the version. It reports whether they name the same content:
// answers of servers behind one name, which come and go while the content stays. From then on only what agrees counts
// for the source. Where that is the content alone, a file that was compared whole is named by it, and one that is too
// large for that has to be described anew, and so it is false. A file that really changed does not show its former
// validators again. whole says that the bytes are all of the file, which are no mix where the server tells the present
// for the time of each file. D-193 says why.
func (s *httpStore) settle(ctx context.Context, r request, want cacheclient.Info, seen head, whole bool) bool {
	t := s.trust()
	if s.fixed || t >= trustContent || seen.dir || seen.size >= 0 && seen.size != want.Size {
		return false
	}
	was := recorded(want)
	answers, back := []head{seen}, false
	for i := 0; i < settleHeads && !back; i++ {
		h, err := s.client.byGet(ctx, r)
		if err != nil || h.dir || h.size != want.Size {
			return false
		}
		back = h.differ(was, t) == ""
		answers = append(answers, h)
		if i == changedHeads && !timesAgree(was, answers) {
			break
		}
	}
	enough := bothAgree
	if !back {
		if enough = manyAgree; !eachAnother(was, answers) {
			return s.noticeClock(ctx, r, answers) && whole
		}
	}
	sum, all := s.sameContent(ctx, r, want, enough)
	if !all {
		return false
	}
	if timesAgree(was, answers) {
		s.fallBack(t, trustTime, "its answers give one file several ETags, as servers behind one name do: size and "+
			"time tell versions apart from now on (option validate=time)")
		return true
	}
	s.fallBack(t, trustContent, "its answers give one file several ETags and times: files are read to know whether they "+
		"changed from now on (option validate=content)")
	return s.name(want, sum)
}

// name has the content name a version that was compared whole, and reports whether it was.
func (s *httpStore) name(want cacheclient.Info, sum string) bool {
	if want.Size > comparedWhole {
		return false
	}
	s.named.Add(want.ID, keyContent+hex.EncodeToString([]byte(sum)))
	return true
}

// eachAnother reports whether no two answers have one ETag, although all tell the time of the version, and one at which
// nothing is being written.
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

// fallBack has the source trusted for less, and says so.
func (s *httpStore) fallBack(from, to trust, why string) {
	if s.trusted.CompareAndSwap(int32(from), int32(to)) {
		s.notes.tell("validate", why)
	}
}

// noticeClock reports whether the server tells its clock for the time of a file: a second later both are another.
func (s *httpStore) noticeClock(ctx context.Context, r request, answers []head) bool {
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
		s.fallBack(s.trust(), trustContent, "it tells the present for the time of each file, and no ETag: files are read to "+
			"know whether they changed from now on (option validate=content)")
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

// sameContent reports whether the bytes of answers are the same, whatever their validators, until there are enough of
// them: at the beginning, in the middle and at the end of the file. Of a file that is compared whole it returns the sum.
func (s *httpStore) sameContent(
	ctx context.Context, r request, want cacheclient.Info, enough func(agree, differ int) bool,
) (sum string, same bool) {
	if want.Size <= comparedWhole {
		return s.sameBytes(ctx, r, want, 0, want.Size, enough)
	}
	for _, off := range []int64{0, (want.Size - settleBytes) / 2, want.Size - settleBytes} {
		if _, same := s.sameBytes(ctx, r, want, off, settleBytes, enough); !same {
			return "", false
		}
	}
	return "", true
}

// sameBytes is sameContent for a part of the file.
func (s *httpStore) sameBytes(
	ctx context.Context, r request, want cacheclient.Info, off, length int64, enough func(agree, differ int) bool,
) (first string, same bool) {
	if length == 0 {
		return "", true
	}
	span := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+length-1)}}
	agree, differ := 0, 0
	for i := 0; i < settleBodies && !enough(agree, differ); i++ {
		sum := sha256.New()
		n, h, err := s.pass(ctx, r, span, length, sum)
		if err != nil || n != length {
			return "", false
		}
		if h.differ(recorded(want), trustAll) == "" {
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

// confirmation is how a body that was opened with this trust is confirmed: not at all where its answer proves the
// version.
func (s *httpStore) confirmation(
	r request, want cacheclient.Info, got head, body *Body, t trust,
) func(context.Context) error {
	if namesContent(want.Version) || t == trustContent {
		return s.confirmContent(r, want, body)
	}
	if t == trustSize || got.proves(want, t) {
		return nil
	}
	whole := body.Start == 0 && body.End == want.Size
	return func(ctx context.Context) error {
		h, err := s.heads.ask(ctx, r)
		switch {
		case err != nil:
			return err
		case h.dir:
			return stale(r, "it is a directory now")
		case h.size >= 0 && h.size != want.Size:
			return stale(r, "it has %d bytes, not %d", h.size, want.Size)
		}
		how := h.differ(recorded(want), t)
		if how == "" || s.settle(ctx, r, want, h, whole) {
			return nil
		}
		return stale(r, "%s", how)
	}
}
