package ufs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	rclone "github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"
	"github.com/rclone/rclone/fs/hash"

	"millrace.io/millrace/cacheclient"
)

// linkExpiry is how long a signed URL is good for. Each is used once and at once; the time
// is for clocks that differ.
const linkExpiry = 15 * time.Minute

// s3Store is a prefix of a bucket. rclone's backend lists it and signs URLs, with all that it knows of
// providers and credentials; what the URLs name is read by the HTTP client.
type s3Store struct {
	src    source
	remote rclone.Fs
	listP  func(ctx context.Context, dir string, callback rclone.ListRCallback) error
	link   func(ctx context.Context, remote string, expire rclone.Duration, unlink bool) (string, error)
	client *httpClient
	// config carries rclone's settings, which it takes from contexts.
	config *rclone.ConfigInfo
	// etagIsNotMD5 says that this provider's ETags name no version to rclone's listing, so
	// that they must not in a response.
	etagIsNotMD5 bool
	noIfMatch    flag
}

func newS3Store(ctx context.Context, src source, values configmap.Simple, opts Options) (*s3Store, error) {
	logToSlog()
	var security tlsOptions
	if err := configstruct.Set(values, &security); err != nil {
		return nil, err
	}
	// This also proves the certificate files, for rclone ends the process over a bad one.
	client, err := newHTTPClient(httpOptions{}, security, opts)
	if err != nil {
		return nil, err
	}
	client.stored = true
	backend, err := rclone.Find("s3")
	if err != nil {
		return nil, fmt.Errorf("rclone's s3 backend: %w", err)
	}
	setS3Defaults(values)
	s := &s3Store{src: src, client: client, etagIsNotMD5: values["provider"] == "Fastly" || values["directory_bucket"] == "true"}
	// The backend keeps its context for as long as it lives.
	own, config := rclone.AddConfig(context.WithoutCancel(ctx))
	if err := configureRclone(config, security, opts); err != nil {
		return nil, err
	}
	s.config = config
	// The slash says that the prefix is a directory, which saves a request that asks.
	s.remote, err = backend.NewFs(own, "s3", joinBucket(src)+"/", values)
	if err != nil {
		return nil, s.explain(ctx, err, src.show)
	}
	features := s.remote.Features()
	s.listP, s.link = features.ListP, features.PublicLink
	if s.listP == nil || s.link == nil {
		return nil, errors.New("rclone's s3 backend neither lists in pages nor signs URLs")
	}
	return s, nil
}

// setS3Defaults sets what a reader needs of rclone.
func setS3Defaults(values configmap.Simple) {
	if values["provider"] == "" {
		values["provider"] = "AWS"
		if values["endpoint"] != "" {
			values["provider"] = "Other"
		}
	}
	// rclone asks for an object before it signs its URL; the URL's own response tells the same.
	values["no_head_object"] = "true"
	// An empty page is not enough to know a directory by.
	values["directory_markers"] = "true"
	// It would ask a KMS for nothing: it is for uploads, but makes listings show no ETags.
	values["server_side_encryption"] = ""
}

func joinBucket(src source) string {
	if src.prefix == "" {
		return src.bucket
	}
	return src.bucket + "/" + src.prefix
}

// configureRclone gives rclone's settings their defaults, whatever its environment variables or
// another user of the library in this process have set, and then ours.
func configureRclone(config *rclone.ConfigInfo, o tlsOptions, opts Options) error {
	values := configmap.Simple{}
	for i := range rclone.ConfigOptionsInfo {
		option := &rclone.Option{Name: rclone.ConfigOptionsInfo[i].Name, Default: rclone.ConfigOptionsInfo[i].Default}
		values[option.Name] = option.String()
	}
	if err := configstruct.Set(values, config); err != nil {
		return fmt.Errorf("rclone's settings: %w", err)
	}
	config.ConnectTimeout = rclone.Duration(opts.ResponseTimeout)
	config.Timeout = rclone.Duration(opts.ResponseTimeout)
	// One attempt: the caller retries.
	config.LowLevelRetries = 1
	config.Transfers = opts.MaxConns
	config.UserAgent = "millrace"
	// LastModified is in every listing; rclone's own time of a file costs a request for each.
	config.UseServerModTime = true
	config.CaCert = o.CACert
	config.InsecureSkipVerify = o.NoCheck
	config.ClientCert, config.ClientKey = o.ClientCert, o.ClientKey
	return nil
}

// String is the source as given.
func (s *s3Store) String() string { return s.src.show }

// Identity is the source alone so far.
func (s *s3Store) Identity() string { return s.String() }

// Close ends idle connections.
func (s *s3Store) Close() error {
	s.client.close()
	return nil
}

func (s *s3Store) show(path string) string { return strings.TrimSuffix(s.src.show, "/") + "/" + path }

// sign is the request for an object.
func (s *s3Store) sign(ctx context.Context, path string) (request, error) {
	if !validPath(path) {
		return request{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	link, err := s.link(ctx, path, rclone.Duration(linkExpiry), false)
	if err != nil {
		return request{}, s.explain(ctx, err, s.show(path))
	}
	u, err := url.Parse(link)
	if err != nil {
		return request{}, fmt.Errorf("%s: its signed URL is not valid", s.show(path))
	}
	return request{url: u, show: s.show(path)}, nil
}

// Stat asks for the object, and where there is none for a directory, which is what other keys begin with.
func (s *s3Store) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if path == "" {
		return cacheclient.Info{Dir: true}, nil
	}
	info, err := s.statObject(ctx, path)
	if !errors.Is(err, fs.ErrNotExist) || !validPath(path) {
		return info, err
	}
	listErr := s.listP(ctx, path, func(rclone.DirEntries) error { return errEnough })
	if listErr == nil || errors.Is(listErr, errEnough) {
		return cacheclient.Info{Path: path, Dir: true}, nil
	}
	if errors.Is(listErr, rclone.ErrorDirNotFound) {
		return cacheclient.Info{}, err
	}
	return cacheclient.Info{}, s.explain(ctx, listErr, s.show(path))
}

func (s *s3Store) statObject(ctx context.Context, path string) (cacheclient.Info, error) {
	r, err := s.sign(ctx, path)
	if err != nil {
		return cacheclient.Info{}, err
	}
	// The URL is signed for GET.
	h, err := s.client.stat(ctx, r, true)
	if err != nil {
		return cacheclient.Info{}, err
	}
	return cacheclient.Info{Path: path, Size: h.size, ModTime: h.modTime, Version: s.version(h.etag)}, nil
}

// List passes on the pages of the listing. Entries are complete.
func (s *s3Store) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	if !validPath(dir) {
		return &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	var fromFn error
	err := s.listP(ctx, dir, func(entries rclone.DirEntries) error {
		for _, entry := range entries {
			info, ok := s.info(ctx, dir, entry)
			if !ok {
				continue
			}
			if fromFn = fn(info); fromFn != nil {
				return fromFn
			}
		}
		return ctx.Err()
	})
	switch {
	case fromFn != nil:
		return fromFn
	case err == nil:
		return nil
	case errors.Is(err, rclone.ErrorDirNotFound) && (dir != "" || s.src.prefix != ""):
		if _, statErr := s.statObject(ctx, dir); statErr == nil {
			return fmt.Errorf("%s: %w", s.show(dir), cacheclient.ErrNotDir)
		}
	}
	return s.explain(ctx, err, s.show(dir))
}

// info is an entry of a directory. Keys that no file system can name are left out, as those with
// an empty part.
func (s *s3Store) info(ctx context.Context, dir string, entry rclone.DirEntry) (cacheclient.Info, bool) {
	path := entry.Remote()
	name, below := path, true
	if dir != "" {
		name, below = strings.CutPrefix(path, dir+"/")
	}
	if !below || !validName(name) {
		return cacheclient.Info{}, false
	}
	object, isFile := entry.(rclone.Object)
	if !isFile {
		return cacheclient.Info{Path: path, Dir: true}, true
	}
	if object.Size() < 0 {
		return cacheclient.Info{}, false
	}
	return cacheclient.Info{
		Path: path, Size: object.Size(), ModTime: object.ModTime(ctx).Truncate(time.Second).UTC(), Version: s.version(listedETag(object)),
	}, true
}

// ended is a context in which rclone can do nothing but answer from memory.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// listedETag is the ETag that a listing told about an object, when it is an MD5; rclone keeps no other.
func listedETag(object rclone.Object) string {
	sum, err := object.Hash(ended, hash.MD5)
	if err != nil {
		return ""
	}
	return sum
}

var md5ETag = regexp.MustCompile(`^[0-9a-f]{32}$`)

// version is the version that an ETag names: the same from a listing, where rclone shows only what
// looks like an MD5, as from a response. An object that was uploaded in parts has none; its
// size and time tell it from others.
func (s *s3Store) version(etag string) string {
	sum := strings.ToLower(strings.Trim(etag, `"`))
	if s.etagIsNotMD5 || !md5ETag.MatchString(sum) {
		return ""
	}
	return `"` + sum + `"`
}

// Open reads a range of the version.
func (s *s3Store) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	r, err := s.sign(ctx, info.Path)
	if err != nil {
		return nil, err
	}
	return s.client.openConfirmed(ctx, r, info, off, length, &s.noIfMatch, func(ctx context.Context) (cacheclient.Info, error) {
		return s.statObject(ctx, info.Path)
	})
}

// explain turns an error of rclone's backend into one for the user.
func (s *s3Store) explain(ctx context.Context, err error, show string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", show, context.Cause(ctx))
	}
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.Is(err, rclone.ErrorDirNotFound), errors.Is(err, rclone.ErrorObjectNotFound):
		return fmt.Errorf("%s: %w", show, fs.ErrNotExist)
	case errors.As(err, &status) && status.HTTPStatusCode() >= http.StatusMultipleChoices:
		return &StatusError{Code: status.HTTPStatusCode(), URL: show}
	}
	var network interface{ Timeout() bool }
	if errors.As(err, &network) {
		return explain(ctx, err, show, time.Duration(s.config.Timeout))
	}
	return fmt.Errorf("%s: %w", show, err)
}

// logToSlog sends what rclone logs to slog, as debugging: what matters comes back in errors.
var logToSlog = sync.OnceFunc(func() { rclone.SetLogger(debugHandler{}) })

// debugHandler passes records on to the default logger of the moment, at level debug.
type debugHandler struct{ slog.Handler }

func (debugHandler) Enabled(ctx context.Context, _ slog.Level) bool {
	return slog.Default().Enabled(ctx, slog.LevelDebug)
}

func (debugHandler) Handle(ctx context.Context, record slog.Record) error {
	record.Level = slog.LevelDebug
	record.Message = "rclone: " + record.Message
	return slog.Default().Handler().Handle(ctx, record)
}

func (h debugHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h debugHandler) WithGroup(string) slog.Handler      { return h }
