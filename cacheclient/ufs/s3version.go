package ufs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

const (
	// mostDoubted is how many objects are remembered whose ETags name no version.
	mostDoubted = 4096
	// settled is the age from which on a listing is taken to know an object, in stores whose listings lag behind.
	settled = time.Minute
	// sampleBytes is how much is compared of the begin and the end of an object that has two ETags.
	sampleBytes = 256 << 10
)

// doubts are the objects whose ETags name no version: listings and responses tell different ones, or servers behind one
// name do. What one object shows takes nothing from others. D-227 says why.
type doubts struct {
	// mu guards of.
	mu sync.Mutex
	of *simplelru.LRU[string, struct{}]
}

// has reports whether the ETags of a path name no version.
func (d *doubts) has(path string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of != nil && d.of.Contains(path)
}

// add remembers a path, and reports whether it was the first.
func (d *doubts) add(path string) (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		// It fails for a size below 1 only.
		d.of, _ = simplelru.NewLRU[string, struct{}](mostDoubted, nil)
	}
	first = d.of.Len() == 0
	d.of.Add(path, struct{}{})
	return first
}

// info is an object as a file.
func (s *s3Store) info(path string, i s3Item) cacheclient.Info {
	info := cacheclient.Info{Path: path, Size: i.size, ModTime: i.modTime, Version: s.listedVersion(path, i.etag)}
	if info.Version == "" && info.ModTime.IsZero() {
		// Nothing tells this version from another: the object may.
		info.Size = cacheclient.UnknownSize
	}
	return info
}

// version is the version that a response's ETag names. An object that was uploaded in parts has one like any other. One
// that is weak, empty, very long, or not in quotes, as HTTP has it, names none.
func (s *s3Store) version(path, etag string) string {
	if s.doubts.has(path) || !strongETag(etag) || len(etag) <= 2 || len(etag) > border.MostVersionBytes {
		return ""
	}
	return etag
}

// listedVersion is the version that a listing's ETag names, from which some servers leave out the quotes.
func (s *s3Store) listedVersion(path, etag string) string { return s.version(path, quoted(etag)) }

// quoted is a listed ETag in the quotes that responses have.
func quoted(etag string) string {
	if !strings.HasPrefix(etag, "W/") && !strings.HasPrefix(etag, `"`) {
		return `"` + etag + `"`
	}
	return etag
}

// Open reads a range of the version. One whose ETag turns out to be a listing's alone, or one server's of several, is
// opened anew by its size and time.
func (s *s3Store) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	if !validPath(info.Path) {
		return nil, &fs.PathError{Op: "open", Path: info.Path, Err: fs.ErrNotExist}
	}
	want := info
	if s.doubts.has(info.Path) {
		want.Version = ""
	}
	body, err := s.get(ctx, want, off, length)
	if errors.Is(err, cacheclient.ErrStale) && s.compare(ctx, want) {
		want.Version = ""
		body, err = s.get(ctx, want, off, length)
	}
	return body, err
}

func (s *s3Store) get(ctx context.Context, want cacheclient.Info, off, length int64) (*Body, error) {
	r, err := s.client.get(ctx, s.key(want.Path), s.show(want.Path))
	if err != nil {
		return nil, err
	}
	stat := func(ctx context.Context) (cacheclient.Info, error) { return s.statObject(ctx, want.Path) }
	body, got, err := s.client.http.openConfirmed(ctx, r, want, off, length, &s.noIfMatch, stat)
	if err == nil && (want.Version == "" || got.etag != want.Version) {
		body.confirmBy(func(ctx context.Context) error { return s.confirm(ctx, r, want) })
	}
	return body, err
}

// confirm asks, after the bytes of an answer without the version's ETag have come, what the object is now. A mark of
// the version has to be told, and be the same: that none is told is no agreement.
func (s *s3Store) confirm(ctx context.Context, r request, want cacheclient.Info) error {
	h, err := s.headObject(ctx, s.key(want.Path), r.show)
	if err != nil {
		return err
	}
	if h.size != want.Size {
		return stale(r, "it has %d bytes, not %d", h.size, want.Size)
	}
	if how := h.differ(recorded(want), trustAll); how != "" {
		return stale(r, "%s", how)
	}
	marked := want.Version != "" || !want.ModTime.IsZero()
	etag := want.Version != "" && h.etag == want.Version
	if at := !want.ModTime.IsZero() && h.modTime.Equal(want.ModTime); marked && !etag && !at {
		return stale(r, "neither its ETag nor its time is told any more")
	}
	return nil
}

// Settle implements Settler.
func (s *s3Store) Settle(ctx context.Context, was cacheclient.Info) { s.compare(ctx, was) }

// Same implements Agreer: of an object whose ETags name no version, size and time do.
func (s *s3Store) Same(was, now cacheclient.Info) bool {
	return s.doubts.has(was.Path) && sameButETag(now, was)
}

// compare looks, when an object seems to have changed, whether the server tells different ETags of it: its listings and
// its responses do, or servers behind one name. Then none of this object names a version from now on, and size and time
// do.
func (s *s3Store) compare(ctx context.Context, want cacheclient.Info) bool {
	if want.Version == "" {
		return false
	}
	h, err := s.headObject(ctx, s.key(want.Path), s.show(want.Path))
	if err != nil {
		return false
	}
	now := cacheclient.Info{Path: want.Path, Size: h.size, ModTime: h.modTime, Version: h.etag}
	if !sameButETag(now, want) || !s.listsOther(ctx, want, h) && !s.alternates(ctx, want) {
		return false
	}
	if s.doubts.add(want.Path) {
		s.log.Warn("the server tells different ETags of an object; size and time tell versions of such a one apart",
			"object", s.show(want.Path), "version", want.Version, "response", now.Version)
	}
	return true
}

// listsOther reports whether listings tell the ETag of a version, and responses another. An object that has just been
// written may do so in stores whose listings lag behind.
func (s *s3Store) listsOther(ctx context.Context, want cacheclient.Info, now head) bool {
	if now.date.IsZero() {
		now.date = time.Now()
	}
	if now.etag == "" || now.etag == want.Version || now.date.Sub(now.modTime) < settled {
		return false
	}
	item, found, err := s.listed(ctx, want.Path)
	return err == nil && found && quoted(item.etag) == want.Version && item.size == want.Size
}

// sameButETag reports whether nothing but its ETag tells an object from what it was. A listing may have told no time.
func sameButETag(now, was cacheclient.Info) bool {
	return now.Size == was.Size && !now.ModTime.IsZero() && (was.ModTime.IsZero() || now.ModTime.Equal(was.ModTime))
}

// alternates reports whether the ETag of a version comes and goes, as that of an object that changed does not, and
// stands for the same bytes, as far as they are compared.
func (s *s3Store) alternates(ctx context.Context, was cacheclient.Info) bool {
	samples := map[bool][]byte{}
	for i := 0; i < settleHeads && len(samples) < 2; i++ {
		sample, h, err := s.sample(ctx, was)
		now := cacheclient.Info{Size: was.Size, ModTime: h.modTime}
		if err != nil || !sameButETag(now, was) {
			return false
		}
		samples[h.etag == was.Version] = sample
	}
	return len(samples) == 2 && bytes.Equal(samples[true], samples[false])
}

// sample reads the begin and the end of what an object is now, and what the answer to the first tells. The second is
// wanted of the same version.
func (s *s3Store) sample(ctx context.Context, was cacheclient.Info) ([]byte, head, error) {
	now := was
	now.Version = ""
	length := min(was.Size, sampleBytes)
	if length == 0 {
		h, err := s.headObject(ctx, s.key(was.Path), s.show(was.Path))
		return nil, h, err
	}
	begin, h, err := s.readOf(ctx, now, 0, length)
	if err != nil || was.Size == length {
		return begin, h, err
	}
	for i := 0; ; i++ {
		end, other, err := s.readOf(ctx, now, was.Size-length, length)
		if err == nil && other.etag != h.etag && i < settleHeads {
			continue
		}
		if err == nil && other.etag != h.etag {
			err = cacheclient.ErrStale
		}
		return append(begin, end...), h, err
	}
}

// readOf reads a range of an object as it is, and the head of the answer.
func (s *s3Store) readOf(ctx context.Context, now cacheclient.Info, off, length int64) ([]byte, head, error) {
	r, err := s.client.get(ctx, s.key(now.Path), s.show(now.Path))
	if err != nil {
		return nil, head{}, err
	}
	body, h, err := s.client.http.open(ctx, r, now, off, length, false, trustAll)
	if err != nil {
		return nil, h, err
	}
	defer func() { _ = body.Close() }()
	if _, err := io.CopyN(io.Discard, body, off-body.Start); err != nil {
		return nil, h, err
	}
	data, err := io.ReadAll(io.LimitReader(body, length))
	return data, h, err
}
