package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/ufs"
)

// maxSuspects bounds the paths that are to be compared with the source; more than that many changes at once have
// the oldest wait for the usual interval.
const maxSuspects = 4096

// masterStore is Alluxio's name space as an under store, so that what is known of names is remembered by the same
// code as for one machine: bounded, with a time to live, negative entries, listings that spill, one question for all
// who ask. It has no content: blocks are read by the client itself.
type masterStore struct {
	cluster *rpc.Cluster
	addr    rpc.Address
	// maxAge is how old the masters' knowledge of the source may be.
	maxAge time.Duration
	// told is called with what the masters told of a path.
	told func(*wire.FileInfo)

	// mu guards suspects, the paths whose next question has the master compare with the source, whatever it knows.
	mu       sync.Mutex
	suspects map[string]struct{}
}

var _ ufs.Store = (*masterStore)(nil)

func (s *masterStore) String() string { return s.addr.String() }

// Identity is the address: what is kept under it is in the memory of one client.
func (s *masterStore) Identity() string { return s.String() }

// absolute is a path of the mount in Alluxio's name space.
func (s *masterStore) absolute(p string) string { return path.Join(s.addr.Path, "/"+p) }

// Stat implements ufs.Store.
func (s *masterStore) Stat(ctx context.Context, p string) (cacheclient.Info, error) {
	f, err := s.status(ctx, p)
	if err != nil {
		return cacheclient.Info{}, err
	}
	s.told(f)
	return infoOf(f, p), nil
}

// status asks the masters about a path.
func (s *masterStore) status(ctx context.Context, p string) (*wire.FileInfo, error) {
	maxAge := s.maxAge
	if s.suspected(p) {
		maxAge = rpc.AlwaysSync
	}
	f, err := s.cluster.Status(ctx, s.absolute(p), maxAge)
	return f, ofPath(s.absolute(p), notThere(err))
}

// ofPath has what the masters say of one path be known for an answer, which says nothing of the others.
func ofPath(path string, err error) error {
	if !errors.Is(err, rpc.ErrRefused) {
		return err
	}
	return fmt.Errorf("%w: %w", &ufs.StatusError{Code: http.StatusServiceUnavailable, URL: path}, err)
}

// suspected reports whether the masters are to compare a path with the source, once.
func (s *masterStore) suspected(p string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, suspect := s.suspects[p]
	delete(s.suspects, p)
	return suspect
}

// suspect has the next question about a path compare with the source.
func (s *masterStore) suspect(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.suspects) < maxSuspects {
		s.suspects[p] = struct{}{}
	}
}

// List implements ufs.Store.
func (s *masterStore) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	abs := s.absolute(dir)
	var notDir bool
	err := s.cluster.Names(ctx, abs, s.maxAge, func() error { return errRestarted }, func(f *wire.FileInfo) error {
		if !f.GetFolder() && f.GetPath() == abs {
			// The list of a file is that file.
			notDir = true
			return nil
		}
		return fn(infoOf(f, join(dir, f.GetName())))
	})
	if err == nil && notDir {
		return cacheclient.ErrNotDir
	}
	return ofPath(abs, notThere(err))
}

// errRestarted ends a listing whose master failed half way: whoever reads it begins anew.
var errRestarted = &rpc.Unreachable{Addr: "the master", Why: "failed in the middle of a listing"}

// notThere makes one of the two errors that Alluxio has for a path below a file.
func notThere(err error) error {
	if err != nil && !errors.Is(err, fs.ErrNotExist) && errors.Is(err, fs.ErrInvalid) &&
		strings.Contains(err.Error(), "ath") {
		return errors.Join(fs.ErrNotExist, err)
	}
	return err
}

// Open implements ufs.Store; nobody reads names.
func (s *masterStore) Open(context.Context, cacheclient.Info, int64, int64) (*ufs.Body, error) {
	return nil, errors.New("content is read from blocks")
}

// Close implements ufs.Store. The cluster is the client's.
func (s *masterStore) Close() error { return nil }

// join is the path of the entry name of the directory dir.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
