package ufs

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"

	"millrace.io/millrace/cacheclient"
)

// Open reads a range of the version, or the whole file where the server ignores ranges.
func (s *httpStore) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	r, err := s.request(info.Path, false)
	if err != nil {
		return nil, err
	}
	if err := s.lengthStands(ctx, r, info); err != nil {
		return nil, err
	}
	t := s.trustOf(info.Path)
	if info, err = s.byContentNow(r, info, t); err != nil {
		return nil, err
	}
	body, got, err := s.openGrown(ctx, r, info, off, length, t)
	if errors.Is(err, cacheclient.ErrStale) && s.stands(ctx, r, info, got, length == info.Size, err) {
		t = s.trustOf(info.Path)
		if named, namedErr := s.byContentNow(r, info, t); namedErr == nil {
			info = named
		}
		body, got, err = s.openGrown(ctx, r, info, off, length, t)
	}
	if err != nil {
		return nil, err
	}
	s.measure(info, body)
	body.confirmBy(s.confirmation(r, info, got, body, t))
	return body, nil
}

// Settle implements Settler.
func (s *httpStore) Settle(ctx context.Context, was cacheclient.Info) {
	r, err := s.request(was.Path, false)
	if err != nil || namesContent(was.Version) {
		return
	}
	now, err := s.client.byGet(ctx, r)
	if err != nil {
		return
	}
	s.settleAnswer(ctx, r, was, now, false)
}

// byContentNow is the version that content names, where nothing else does any more: one that was compared whole has
// one.
func (s *httpStore) byContentNow(r request, info cacheclient.Info, t trust) (cacheclient.Info, error) {
	if t != trustContent || namesContent(info.Version) {
		return info, nil
	}
	named, compared := s.named.Get(info.ID)
	if !compared {
		return info, stale(r, "only its content tells versions apart now")
	}
	info.Version = named
	return info, nil
}

// stands reports whether an answer that looks as if of another version may be of this one.
func (s *httpStore) stands(
	ctx context.Context, r request, info cacheclient.Info, got head, whole bool, err error,
) bool {
	var marks *otherMarksError
	if errors.As(err, &marks) {
		if s.settleAnswer(ctx, r, info, got, whole) {
			return true
		}
		s.doubtHeads(ctx, r, info)
		return false
	}
	if got.size >= 0 && got.size != info.Size && s.heads.state.Load() == headsAgree {
		s.doubtHeads(ctx, r, info)
	}
	return false
}

// doubtHeads is called when a GET has found another version than the one described. Where HEAD tells that one still, it
// told what is wrong, as one that a proxy keeps does.
func (s *httpStore) doubtHeads(ctx context.Context, r request, info cacheclient.Info) {
	if s.heads.state.Load() != headsAgree {
		return
	}
	h, err := s.client.statBy(ctx, http.MethodHead, r, nil)
	if err != nil || h.dir || h.size != info.Size || h.differ(recorded(info), s.trustOf(info.Path)) != "" {
		return
	}
	g, err := s.client.byGet(ctx, r)
	switch {
	case err != nil || g.dir:
	case g.size != h.size:
		s.heads.learn(headsDiffer, "HEAD tells another size than GET")
	case g.differ(h.validators, s.trustOf(info.Path)) != "":
		// As in judgeHead.
		s.heads.learn(headsDiffer, "")
	}
}

// openVersion makes a request for the range. Where the server refuses the condition (412) or the range (416), it is
// asked what the file is now: mostly it changed. When it did not, the server gets If-Match wrong, and is not sent it
// again.
func (s *httpStore) openVersion(
	ctx context.Context, r request, want cacheclient.Info, off, length int64, t trust,
) (*Body, head, error) {
	body, got, err := s.client.open(ctx, r, want, off, length, !s.noIfMatch.Load(), t)
	status, _ := statusOf(err)
	if status != http.StatusPreconditionFailed && status != http.StatusRequestedRangeNotSatisfiable {
		return body, got, err
	}
	now, statErr := s.heads.ask(ctx, r)
	switch {
	case statErr != nil:
		return nil, now, statErr
	case now.dir || now.size >= 0 && now.size != want.Size:
		return nil, now, stale(r, "it changed")
	}
	if how := now.differ(recorded(want), t); how != "" {
		return nil, now, &otherMarksError{stale(r, "%s", how)}
	}
	if status == http.StatusPreconditionFailed && !s.noIfMatch.Load() {
		s.noIfMatch.Store(true)
		return s.client.open(ctx, r, want, off, length, false, t)
	}
	return nil, got, err
}

// measure has a body whose length was not told remembered where it ends before or after the size that was described.
func (s *httpStore) measure(info cacheclient.Info, body *Body) {
	if counted, ok := body.ReadCloser.(*countedBody); ok && counted.open {
		counted.odd = func() { s.lengths.Add(cacheclient.Identify(info).ID, struct{}{}) }
	}
}

// lengthStands returns ErrStale where a body of the version had another length, and a second one has it, too: then HEAD
// told a size that GET does not have. D-224 says why.
func (s *httpStore) lengthStands(ctx context.Context, r request, info cacheclient.Info) error {
	key := cacheclient.Identify(info).ID
	if !s.lengths.Remove(key) || info.Size > mostCounted {
		return nil
	}
	n, _, err := s.pass(ctx, r, nil, mostCounted, sha256.New())
	if err != nil || n == info.Size {
		// What is wrong with it the answer to the range tells.
		return nil //nolint:nilerr // See above.
	}
	if s.heads.state.Load() == headsAgree {
		s.heads.learn(headsDiffer, "HEAD tells another size than GET")
	}
	return stale(r, "it has %d bytes, not %d", n, info.Size)
}
