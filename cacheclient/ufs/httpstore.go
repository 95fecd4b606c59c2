package ufs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"

	"millrace.io/millrace/cacheclient"
)

// httpStore is a tree of files that a web server lists by index pages.
type httpStore struct {
	client *httpClient
	src    source
	opt    httpOptions
	// identity is what Identity tells.
	identity string
	notes    *notes
	heads    heads
	// told are the directories that listings told of.
	told *toldDirs
	// called are the directories whose index called itself one.
	called *toldDirs
	// pages are the files that listings told of and that are answered by a page, as what is not there may be.
	pages recent
	// shapes are what directories look like, by which a tree that holds itself is known.
	shapes *shapes
	// chosen is the trust in what tells versions apart where fixed says that the user chose it, and whole that content is
	// compared to its last byte.
	chosen       trust
	fixed, whole bool
	// noticed is the trust in single files, by pathKey, where it is less than all.
	noticed *lru.Cache[uint64, trust]
	// turns are of what is being found out of a file.
	turns turns
	// young is when versions are old enough to be told by their time, and lengths are those whose body had another length
	// than the one described, both by identity.
	young   *lru.Cache[uint64, time.Time]
	lengths *lru.Cache[uint64, struct{}]
	// named are versions of other validators that were compared whole, by their identities: the content that each names.
	named *lru.Cache[uint64, string]
	// slashes are the directories in which the server redirected a directory to its address with a slash.
	slashes *toldDirs
	// bare says that the root has no slash at its end.
	bare flag
	// noIfMatch remembers that the server gets If-Match wrong.
	noIfMatch flag
	// greeting is the goroutine of greet, which dismiss ends.
	greeting sync.WaitGroup
	dismiss  context.CancelFunc
}

// mostNamed is how many versions that were compared whole are remembered.
const mostNamed = 1024

// mostNoticed is how many files are remembered that are trusted for less.
const mostNoticed = 16 << 10

func newHTTPStore(src source, values configmap.Simple, opts Options, noticed *notes) (*httpStore, error) {
	s := &httpStore{src: src, identity: identityOf(src, httpTable, values), notes: noticed, told: newToldDirs()}
	s.called, s.slashes, s.shapes = newToldDirs(), newToldDirs(), newShapes()
	// They fail for a size below 1 only.
	s.named, _ = lru.New[uint64, string](mostNamed)
	s.noticed, _ = lru.New[uint64, trust](mostNoticed)
	s.young, _ = lru.New[uint64, time.Time](mostNamed)
	s.lengths, _ = lru.New[uint64, struct{}](mostNamed)
	var security tlsOptions
	var proxies proxyOptions
	err := errors.Join(configstruct.Set(values, &s.opt), configstruct.Set(values, &security), configstruct.Set(values,
		&proxies))
	if err == nil {
		err = s.setTrust()
	}
	if err != nil {
		return nil, err
	}
	if s.client, err = newHTTPClient(s.opt, security, proxies, opts); err != nil {
		return nil, err
	}
	s.heads.begin(s.client, noticed, s.opt.NoHead)
	return s, nil
}

// String is the URL of the root.
func (s *httpStore) String() string { return s.src.show }

// Identity is the source and what decides what it shows.
func (s *httpStore) Identity() string { return s.identity }

// greet opens a connection for files ahead of the first one, whose reader would otherwise wait for
// the handshakes. That it fails does not matter.
func (s *httpStore) greet() {
	if s.opt.NoHead {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.client.timeout)
	s.dismiss = cancel
	s.greeting.Go(func() {
		r, err := s.request("", true)
		if err != nil {
			return
		}
		if resp, err := s.client.send(ctx, s.client.files, http.MethodHead, r, nil); err == nil {
			discard(resp)
		}
	})
}

// Close ends idle connections.
func (s *httpStore) Close() error {
	if s.dismiss != nil {
		s.dismiss()
	}
	s.greeting.Wait()
	s.heads.close()
	s.client.close()
	return nil
}

// request names a path at the source; a directory is asked for with a slash at its end.
func (s *httpStore) request(path string, dir bool) (request, error) {
	if !validPath(path) {
		return request{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if dir && path != "" {
		path += "/"
	}
	base := s.src.base
	plain, escaped := base.Path+path, base.EscapedPath()+escapePath(path)
	if s.opt.NoEscape {
		return literalRequest(base, path), nil
	}
	u := withPath(base, plain, escaped)
	return request{url: u, show: u.String()}, nil
}

// literalRequest names a path by its bytes, but those that end an address or a line of HTTP.
func literalRequest(base *url.URL, path string) request {
	var literal strings.Builder
	for n := range len(path) {
		if c := path[n]; c <= ' ' || c >= 0x7f || c == '?' || c == '#' {
			fmt.Fprintf(&literal, "%%%02X", c)
		} else {
			literal.WriteByte(c)
		}
	}
	escaped := base.EscapedPath() + literal.String()
	if plain, err := url.PathUnescape(escaped); err == nil {
		u := withPath(base, plain, escaped)
		return request{url: u, show: u.String()}
	}
	// No URL has such a path: it is sent as it is.
	u := withPath(base, base.Path+path, "")
	show := u.String()
	u.Opaque = escaped
	return request{url: u, show: show}
}

// escapePath escapes each name of a path, so that the server reads every byte as it is. Object stores read a plus sign
// as a space, also in a path.
func escapePath(path string) string {
	names := strings.Split(path, "/")
	for i, name := range names {
		names[i] = strings.ReplaceAll(url.PathEscape(name), "+", "%2B")
	}
	return strings.Join(names, "/")
}

// checkRange refuses what no caller means: a range that is not in the file, or of a file of unknown size.
func checkRange(info cacheclient.Info, off, length int64) error {
	if info.Dir {
		return fmt.Errorf("%q: %w", info.Path, cacheclient.ErrIsDir)
	}
	if info.Size < 0 || off < 0 || length < 1 || off > info.Size || length > info.Size-off {
		return fmt.Errorf("%q: %d bytes from %d are not within %d: %w", info.Path, length, off, info.Size,
			fs.ErrInvalid)
	}
	return nil
}
