package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
)

// fakeStore is an under store in memory: one file of one version at a time for each name, and listings as they are
// given.
type fakeStore struct {
	// noRanges has bodies begin at the beginning and end at the end.
	noRanges bool
	// confirm is what bodies are confirmed by; nil for a strong validator.
	confirm func(ctx context.Context) error
	// opened, if set, is asked for each body, and may replace its bytes or fail.
	opened func(ctx context.Context, info cacheclient.Info, data []byte) ([]byte, error)
	// list, if set, tells the entries of a directory.
	list func(dir string, fn func(cacheclient.Info) error) error

	opens, stats, sent, confirms atomic.Int64

	// mu guards the rest.
	mu sync.Mutex
	// files has the content of each path, and marks its version.
	files map[string][]byte
	marks map[string]string
	// failing has the error of Stat for a path.
	failing map[string]error
}

func newFakeStore() *fakeStore {
	return &fakeStore{files: map[string][]byte{}, marks: map[string]string{}, failing: map[string]error{}}
}

func (s *fakeStore) put(name string, data []byte, mark string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name], s.marks[name] = data, mark
}

func (*fakeStore) String() string   { return "fake" }
func (*fakeStore) Identity() string { return "fake" }
func (*fakeStore) Close() error     { return nil }

func (s *fakeStore) Stat(_ context.Context, p string) (cacheclient.Info, error) {
	s.stats.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failing[p]; err != nil {
		return cacheclient.Info{}, err
	}
	data, ok := s.files[p]
	if !ok {
		return cacheclient.Info{}, fs.ErrNotExist
	}
	return cacheclient.Info{Path: p, Size: int64(len(data)), ModTime: time.Unix(1e9, 0), Version: s.marks[p]}, nil
}

func (s *fakeStore) List(_ context.Context, dir string, fn func(cacheclient.Info) error) error {
	if s.list == nil {
		return fs.ErrNotExist
	}
	return s.list(dir, fn)
}

func (s *fakeStore) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*ufs.Body, error) {
	s.opens.Add(1)
	s.mu.Lock()
	data, mark := s.files[info.Path], s.marks[info.Path]
	s.mu.Unlock()
	if mark != info.Version {
		return nil, cacheclient.ErrStale
	}
	if s.opened != nil {
		var err error
		if data, err = s.opened(ctx, info, data); err != nil {
			return nil, err
		}
	}
	body := &ufs.Body{Start: off, End: off + length}
	if s.noRanges {
		body.Start, body.End = 0, int64(len(data))
	}
	body.ReadCloser = io.NopCloser(io.TeeReader(&endingReader{ctx, bytes.NewReader(data[body.Start:body.End])},
		counter{&s.sent}))
	if s.confirm != nil {
		body.Confirm = func(ctx context.Context) error {
			s.confirms.Add(1)
			return s.confirm(ctx)
		}
	}
	return body, nil
}

// endingReader ends with its context, as a body does.
type endingReader struct {
	ctx context.Context //nolint:containedctx // of the request this body belongs to
	r   io.Reader
}

func (r *endingReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ctx.Err()
	}
	return r.r.Read(p[:min(len(p), 128<<10)])
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// cacheOf opens a cache over a store.
func cacheOf(t *testing.T, store ufs.Store, cfg embedded.Config) *embedded.Cache {
	t.Helper()
	c, err := embedded.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// listAll reads a directory in pages.
func listAll(t *testing.T, c cacheclient.Client, dir string, limit int) []cacheclient.Info {
	t.Helper()
	var all []cacheclient.Info
	for from := (cacheclient.Cursor{}); ; {
		p, err := c.List(t.Context(), dir, from, limit, false)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Entries...)
		if p.End {
			return all
		}
		from = p.Next
	}
}

// many is a listing of so many files with names of some length.
func many(n int) func(string, func(cacheclient.Info) error) error {
	return func(dir string, fn func(cacheclient.Info) error) error {
		for i := range n {
			if err := fn(cacheclient.Info{
				Path: path.Join(dir, fmt.Sprintf("a-name-of-some-length-%08d", i)), Size: 1,
				ModTime: time.Unix(1e9, 0),
			}); err != nil {
				return err
			}
		}
		return nil
	}
}
