package ufs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"

	"millrace.io/millrace/cacheclient"
)

// linkExpiry is how long a signed URL is good for. Each is used once and at once; the time
// is for clocks that differ.
const linkExpiry = 15 * time.Minute

// s3Store is a prefix of a bucket as a tree of files. A directory is what several keys begin with up to a slash, or the
// empty object of that name. Where a key is also what others begin with, the directory is shown and the object is not:
// a file system has one thing of a name, and most of the bucket is in the directory. D-163 says more.
type s3Store struct {
	src      source
	client   *s3Client
	identity string
	log      *slog.Logger
	// noIfMatch remembers that the server gets If-Match wrong.
	noIfMatch flag
	// doubts are the objects whose ETags name no version.
	doubts doubts
	// hidden and shadowed remember that the log has been told of keys that cannot be shown.
	hidden, shadowed flag
	// plain has the paths that turned out to be objects and no directories.
	plain recent
}

func newS3Store(ctx context.Context, src source, values configmap.Simple, opts Options) (*s3Store, error) {
	logToSlog()
	var security tlsOptions
	var proxies proxyOptions
	if err := errors.Join(configstruct.Set(values, &security), configstruct.Set(values, &proxies)); err != nil {
		return nil, err
	}
	client, err := newHTTPClient(httpOptions{}, security, proxies, opts)
	if err != nil {
		return nil, err
	}
	client.stored = true
	setS3Defaults(values)
	table, err := optionTable(src)
	if err != nil {
		return nil, err
	}
	s := &s3Store{src: src, log: opts.Log}
	if values["env_auth"] == "true" && values["access_key_id"] == "" {
		s.identity = identityOf(src, table, values, "environment="+environment(awsEnvironment))
	} else {
		s.identity = identityOf(src, table, values)
	}
	s.client, err = newS3Client(ctx, src, values, client)
	return s, err
}

// setS3Defaults fills in what a reader need not tell.
func setS3Defaults(values configmap.Simple) {
	if values["provider"] == "" {
		values["provider"] = "AWS"
		if values["endpoint"] != "" {
			values["provider"] = providerOther
		}
	}
	if values["region"] == "" {
		values["region"] = "us-east-1"
	}
}

func joinBucket(src source) string {
	if src.prefix == "" {
		return src.bucket
	}
	return src.bucket + "/" + src.prefix
}

// String is the source as given.
func (s *s3Store) String() string { return s.src.show }

// Identity is the bucket, the server, and the keys.
func (s *s3Store) Identity() string { return s.identity }

// Close ends idle connections.
func (s *s3Store) Close() error {
	s.client.http.close()
	return nil
}

func (s *s3Store) show(path string) string { return strings.TrimSuffix(s.src.show, "/") + "/" + path }

// key is the key of a path, "" for the root of the bucket.
func (s *s3Store) key(path string) string {
	if s.src.prefix == "" {
		return path
	}
	if path == "" {
		return s.src.prefix
	}
	return s.src.prefix + "/" + path
}

// below is what the keys of a directory begin with.
func (s *s3Store) below(dir string) string {
	if key := s.key(dir); key != "" {
		return key + "/"
	}
	return ""
}

// Stat asks for the object, and side by side whether other keys are below it: then it is a directory.
func (s *s3Store) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if path == "" {
		return cacheclient.Info{Dir: true}, nil
	}
	if !validPath(path) {
		return cacheclient.Info{}, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	var info cacheclient.Info
	var object, listing error
	var dir bool
	known := s.plain.has(path)
	var both sync.WaitGroup
	if !known {
		both.Go(func() { dir, listing = s.begins(ctx, s.below(path)) })
	}
	info, object = s.statObject(ctx, path)
	both.Wait()
	if known && object != nil {
		dir, listing = s.begins(ctx, s.below(path))
	}
	switch {
	case dir:
		if object == nil {
			s.shadow(path)
		}
		return cacheclient.Info{Path: path, Dir: true}, nil
	case object == nil:
		if listing == nil {
			s.plain.add(path)
		}
		return info, nil
	case errors.Is(object, fs.ErrNotExist) || refusedAlone(object):
		return s.absent(ctx, path, object, listing)
	}
	return cacheclient.Info{}, object
}

// refusedAlone reports whether a server has refused one request for good, by whatever status. It says so of a key that
// may not be read (403), of one that wants the key of its encryption (400), and of one that is not there.
func refusedAlone(err error) bool {
	code, refused := statusOf(err)
	return refused && code >= 400 && code < 500 && !errors.Is(err, cacheclient.ErrUnavailable)
}

// absent tells why there is no object. A server may refuse a key that is not there, where the caller may not list. A
// listing tells, if one is to be had.
func (s *s3Store) absent(ctx context.Context, path string, object, listing error) (cacheclient.Info, error) {
	if listing != nil {
		return cacheclient.Info{}, absence(object, explainS3(ctx, listing, s.show(path)))
	}
	if refusedAlone(object) && !errors.Is(object, fs.ErrNotExist) {
		item, found, err := s.listed(ctx, path)
		switch {
		case err != nil:
			return cacheclient.Info{}, explainS3(ctx, err, s.show(path))
		case found:
			// It is there; reading it says what is refused.
			return s.info(path, item), nil
		}
	}
	// An empty directory is the object "dir/", which not all servers list below itself.
	if _, err := s.headObject(ctx, s.below(path), s.show(path)+"/"); err == nil {
		return cacheclient.Info{Path: path, Dir: true}, nil
	}
	if errors.Is(object, fs.ErrNotExist) {
		return cacheclient.Info{}, object
	}
	return cacheclient.Info{}, fmt.Errorf("%s: %w", s.show(path), fs.ErrNotExist)
}

// absence is what a lookup fails by where there is no object and no listing either. That there is no object is an
// answer if the server refuses to list, or has nothing to list.
func absence(object, listing error) error {
	if errors.Is(object, fs.ErrNotExist) && errors.Is(listing, fs.ErrPermission) || errors.Is(listing, fs.ErrNotExist) {
		return object
	}
	return listing
}

// begins reports whether any key begins with the prefix.
func (s *s3Store) begins(ctx context.Context, prefix string) (found bool, err error) {
	err = s.client.pages(ctx, prefix, "", 1, func(items []s3Item) error {
		if len(items) == 0 {
			return nil
		}
		found = true
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// listed is what a listing tells of the object at a path.
func (s *s3Store) listed(ctx context.Context, path string) (item s3Item, found bool, err error) {
	key := s.key(path)
	// The key itself is the first of those that begin with it.
	err = s.client.pages(ctx, key, "", 1, func(items []s3Item) error {
		if len(items) == 0 {
			return nil
		}
		if found = items[0].key == key; found {
			item = items[0]
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return item, found, err
}

func (s *s3Store) statObject(ctx context.Context, path string) (cacheclient.Info, error) {
	h, err := s.headObject(ctx, s.key(path), s.show(path))
	if err != nil {
		return cacheclient.Info{}, err
	}
	return cacheclient.Info{Path: path, Size: h.size, ModTime: h.modTime, Version: s.version(path, h.etag)}, nil
}

// headObject asks for the head of an object, by HEAD, or by a GET of its first byte where the server has no HEAD or
// does not tell the size by it.
func (s *s3Store) headObject(ctx context.Context, key, show string) (head, error) {
	r, err := s.client.head(ctx, key, show)
	if err != nil {
		return head{}, err
	}
	h, err := s.client.http.statBy(ctx, http.MethodHead, r, nil)
	status, refused := statusOf(err)
	switch {
	case err == nil && h.size >= 0:
		return h, nil
	case refused && status != http.StatusMethodNotAllowed && status != http.StatusNotImplemented,
		err != nil && !refused:
		return head{}, err
	}
	if r, err = s.client.get(ctx, key, show); err != nil {
		return head{}, err
	}
	return s.client.http.stat(ctx, r)
}

// List passes on the pages of the listing. Entries are complete. Keys that no file system can name are left out, as
// those with an empty part, and so is an object that is a directory, too.
func (s *s3Store) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	if !validPath(dir) {
		return &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	d := &s3Directory{store: s, dir: dir, prefix: s.below(dir), fn: fn}
	err := s.client.pages(ctx, d.prefix, slashes, 0, func(items []s3Item) error {
		if err := d.add(items); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err == nil {
		err = d.end()
	}
	switch {
	case d.failed != nil:
		return d.failed
	case err == nil && (d.some || d.prefix == ""):
		return nil
	case err == nil:
		return s.listedNothing(ctx, dir)
	case statusCode(err) == http.StatusNotFound:
		return fmt.Errorf("%s: %w", s.show(dir), fs.ErrNotExist)
	}
	return explainS3(ctx, err, s.show(dir))
}

// listedNothing tells what a path is whose listing is empty: an empty directory, a file, or nothing.
func (s *s3Store) listedNothing(ctx context.Context, dir string) error {
	_, err := s.headObject(ctx, s.below(dir), s.show(dir)+"/")
	if err == nil {
		return nil
	}
	if _, fileErr := s.headObject(ctx, s.key(dir), s.show(dir)); fileErr == nil {
		return fmt.Errorf("%s: %w", s.show(dir), cacheclient.ErrNotDir)
	}
	if errors.Is(err, fs.ErrNotExist) || refusedAlone(err) {
		// A right to list shows what is there.
		return fmt.Errorf("%s: %w", s.show(dir), fs.ErrNotExist)
	}
	return err
}

// explainS3 turns an error of the SDK into one for the user.
func explainS3(ctx context.Context, err error, show string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", show, context.Cause(ctx))
	}
	if code := statusCode(err); code >= http.StatusMultipleChoices {
		var told smithy.APIError
		reason := ""
		if errors.As(err, &told) {
			reason = told.ErrorCode()
		}
		refused := &StatusError{Code: code, URL: show, Reason: reason}
		if answer := (*smithyhttp.ResponseError)(nil); errors.As(err, &answer) && answer.Response != nil {
			refused.RetryAfter = retryAfter(answer.Response.Header, time.Now())
		}
		return refused
	}
	var network *networkError
	if errors.As(err, &network) {
		return network
	}
	if sending := (*smithyhttp.RequestSendError)(nil); errors.As(err, &sending) {
		return fmt.Errorf("%s: %w", show, sending.Err)
	}
	return fmt.Errorf("%s: %w", show, err)
}

// shadow tells once that an object is not shown because a directory has its name.
func (s *s3Store) shadow(path string) {
	if !s.shadowed.Swap(true) {
		s.log.Warn("an object is not shown because other keys make a directory of its name", "object", s.show(path))
	}
}

// hide tells once that a key is not shown because no file system can have it.
func (s *s3Store) hide(key string) {
	if !s.hidden.Swap(true) {
		s.log.Warn("a key is not shown because a file system cannot name it: a part of it is empty, a dot, two dots, "+
			"too long, or ends an object with a slash",
			"bucket", s.src.bucket, "key", key)
	}
}
