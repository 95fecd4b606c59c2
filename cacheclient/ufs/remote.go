package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	_ "github.com/rclone/rclone/backend/sftp" // registers sftp
	_ "github.com/rclone/rclone/backend/webdav"
	webdav "github.com/rclone/rclone/backend/webdav/api"
	rclone "github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"
	"github.com/rclone/rclone/fs/config/obscure"
	"github.com/rclone/rclone/fs/hash"

	"millrace.io/millrace/cacheclient"
)

// remoteStore is a directory of any other store that rclone speaks to. rclone tells of a file its size and its time,
// and some servers a checksum, by which versions are told apart, and nothing of the version that a body is of: so the
// file is looked at before its body is asked for, and again before the last bytes are handed on.
type remoteStore struct {
	src      source
	identity string
	remote   rclone.Fs
	listP    func(ctx context.Context, dir string, callback rclone.ListRCallback) error
	// own carries rclone's settings, which it takes from contexts.
	own     context.Context //nolint:containedctx // it never ends
	timeout time.Duration
	// noRanges remembers that the server ignores ranges.
	noRanges flag
}

func newRemoteStore(ctx context.Context, src source, values configmap.Simple, opts Options) (*remoteStore, error) {
	logToSlog()
	var security tlsOptions
	if err := configstruct.Set(values, &security); err != nil {
		return nil, err
	}
	// rclone ends the process over a bad certificate file.
	if _, err := newTLSConfig(security, opts.Network); err != nil {
		return nil, err
	}
	s := &remoteStore{
		src: src, identity: identityOf(src, remoteTable(src.backend), values),
		timeout: opts.ResponseTimeout,
	}
	own, config := rclone.AddConfig(context.WithoutCancel(ctx))
	if err := configureRclone(config, security, opts); err != nil {
		return nil, err
	}
	s.own = own
	for _, o := range src.backend.Options {
		if value := values[o.Name]; o.IsPassword && value != "" {
			hidden, err := obscure.Obscure(value)
			if err != nil {
				return nil, fmt.Errorf("option %s: %w", o.Name, err)
			}
			values[o.Name] = hidden
		}
	}
	remote, err := src.backend.NewFs(own, src.backend.Name, src.dir, values)
	switch {
	case errors.Is(err, rclone.ErrorIsFile):
		return nil, &plainError{what: src.isFile(), err: cacheclient.ErrNotDir}
	case err != nil:
		return nil, s.explain(ctx, err, src.show)
	}
	s.remote, s.listP = remote, remote.Features().ListP
	return s, nil
}

// String is the source as given.
func (s *remoteStore) String() string { return s.src.show }

// Identity is the source and what decides what it shows.
func (s *remoteStore) Identity() string { return s.identity }

// Close ends the backend's connections.
func (s *remoteStore) Close() error {
	if shutdown := s.remote.Features().Shutdown; shutdown != nil {
		return shutdown(s.own)
	}
	return nil
}

// with is a context for a call of rclone.
func (s *remoteStore) with(ctx context.Context) context.Context { return rclone.CopyConfig(ctx, s.own) }

func (s *remoteStore) show(path string) string {
	return strings.TrimSuffix(s.src.show, "/") + "/" + path
}

// object looks a file up.
func (s *remoteStore) object(ctx context.Context, path string) (rclone.Object, error) {
	if !validPath(path) {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	// Not every backend looks at its context.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, err := s.remote.NewObject(s.with(ctx), path)
	if err == nil {
		return o, nil
	}
	err = s.explain(ctx, err, s.show(path))
	if s.throughFile(ctx, path, err) {
		return nil, fmt.Errorf("%s: %w", s.show(path), fs.ErrNotExist)
	}
	return nil, err
}

// throughFile reports whether a path that cannot be looked up goes through a file, for which servers have all sorts of
// errors.
func (s *remoteStore) throughFile(ctx context.Context, path string, err error) bool {
	slash := strings.LastIndexByte(path, '/')
	if slash < 0 || ctx.Err() != nil {
		return false
	}
	for _, plain := range []error{cacheclient.ErrIsDir, cacheclient.ErrUnavailable, fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(err, plain) {
			return false
		}
	}
	_, err = s.object(ctx, path[:slash])
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// Stat describes a file or a directory.
func (s *remoteStore) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if path == "" {
		return cacheclient.Info{Dir: true}, nil
	}
	o, err := s.object(ctx, path)
	switch {
	case errors.Is(err, cacheclient.ErrIsDir):
		return cacheclient.Info{Path: path, Dir: true}, nil
	case err != nil:
		return cacheclient.Info{}, err
	case o.Size() < 0:
		return cacheclient.Info{},
			fmt.Errorf("%s: the server does not tell the size of the file, so that it cannot be read", s.show(path))
	}
	return s.info(ctx, o), nil
}

func (s *remoteStore) info(ctx context.Context, o rclone.Object) cacheclient.Info {
	return cacheclient.Info{
		Path: o.Remote(), Size: o.Size(), ModTime: o.ModTime(s.with(ctx)).UTC(),
		Version: s.version(ctx, o),
	}
}

// version is a checksum that came with the file's description, "" where none did: ownCloud and its kin tell one. SFTP
// has none but what a program on the server would compute.
func (s *remoteStore) version(ctx context.Context, o rclone.Object) string {
	if s.src.backend.Name != "webdav" {
		return ""
	}
	for _, kind := range []hash.Type{hash.SHA1, hash.MD5} {
		if sum, err := o.Hash(s.with(ctx), kind); err == nil && sum != "" {
			return kind.String() + ":" + sum
		}
	}
	return ""
}

// List passes the directory on: in pages where the backend has them, else as a whole.
func (s *remoteStore) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	if !validPath(dir) {
		return &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var fromFn error
	empty := true
	pass := func(entries rclone.DirEntries) error {
		for _, entry := range entries {
			info, ok := s.entry(ctx, dir, entry)
			if !ok {
				continue
			}
			empty = false
			if fromFn = fn(info); fromFn != nil {
				return fromFn
			}
		}
		return ctx.Err()
	}
	var err error
	if s.listP != nil {
		err = s.listP(s.with(ctx), dir, pass)
	} else {
		var entries rclone.DirEntries
		if entries, err = s.remote.List(s.with(ctx), dir); err == nil {
			err = pass(entries)
		}
	}
	switch {
	case fromFn != nil:
		return fromFn
	case err == nil && !empty:
		return nil
	case err != nil:
		err = s.explain(ctx, err, s.show(dir))
	}
	return s.notDir(ctx, dir, err)
}

// notDir tells why a directory was listed as empty, or not at all: a backend may take a file for an empty directory.
func (s *remoteStore) notDir(ctx context.Context, dir string, err error) error {
	if dir == "" || err != nil && (ctx.Err() != nil || errors.Is(err, cacheclient.ErrUnavailable)) {
		return err
	}
	switch _, statErr := s.object(ctx, dir); {
	case statErr == nil:
		return fmt.Errorf("%s: %w", s.show(dir), cacheclient.ErrNotDir)
	case err != nil && errors.Is(statErr, fs.ErrNotExist):
		return statErr
	}
	return err
}

// entry is an entry of a directory, if a file system can name it and it can be read.
func (s *remoteStore) entry(ctx context.Context, dir string, entry rclone.DirEntry) (cacheclient.Info, bool) {
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
	return s.info(ctx, object), object.Size() >= 0
}

// Open reads a range of the version, or the whole file where the server ignores ranges.
func (s *remoteStore) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	o, err := s.object(ctx, info.Path)
	switch {
	case errors.Is(err, cacheclient.ErrIsDir):
		return nil, fmt.Errorf("%s is a directory now: %w", s.show(info.Path), cacheclient.ErrStale)
	case err != nil:
		return nil, err
	case s.info(ctx, o).Mark() != info.Mark():
		return nil, fmt.Errorf("%s: %w", s.show(info.Path), cacheclient.ErrStale)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	start, end := off, off+length
	var body io.ReadCloser
	if length < info.Size && !s.noRanges.Load() {
		body, err = o.Open(s.with(ctx), &rclone.RangeOption{Start: off, End: end - 1})
		if errors.Is(err, rclone.ErrorRangeIgnored) {
			s.noRanges.Store(true)
		}
	}
	if length == info.Size || s.noRanges.Load() {
		start, end = 0, info.Size
		body, err = o.Open(s.with(ctx))
	}
	if err != nil {
		cancel(nil)
		return nil, s.explain(ctx, err, s.show(info.Path))
	}
	patient := newPatientReader(ctx, cancel, body, s.show(info.Path), s.timeout)
	counted := &countedBody{src: patient, left: end - start}
	return &Body{ReadCloser: &provenBody{store: s, ctx: ctx, info: info, countedBody: counted}, Start: start, End: end},
		nil
}

// provenBody hands the last bytes on only when the file is still the version that they should be of.
type provenBody struct {
	*countedBody
	store *remoteStore
	ctx   context.Context //nolint:containedctx // of the request this body belongs to
	info  cacheclient.Info
}

func (b *provenBody) Read(p []byte) (int, error) {
	had := b.left > 0
	n, err := b.countedBody.Read(p)
	if !had || b.left > 0 {
		return n, err
	}
	o, err := b.store.object(b.ctx, b.info.Path)
	if err != nil {
		return 0, err
	}
	if b.store.info(b.ctx, o).Mark() != b.info.Mark() {
		return 0, fmt.Errorf("%s: %w", b.store.show(b.info.Path), cacheclient.ErrStale)
	}
	return n, nil
}

// explain turns an error of rclone's backend into one for the user.
func (s *remoteStore) explain(ctx context.Context, err error, show string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", show, context.Cause(ctx))
	}
	var status *webdav.Error
	var network interface{ Timeout() bool }
	switch {
	case errors.Is(err, rclone.ErrorIsDir), errors.Is(err, rclone.ErrorNotAFile):
		return fmt.Errorf("%s: %w", show, cacheclient.ErrIsDir)
	case errors.Is(err, rclone.ErrorDirNotFound), errors.Is(err, rclone.ErrorObjectNotFound):
		return fmt.Errorf("%s: %w", show, fs.ErrNotExist)
	case errors.Is(err, rclone.ErrorPermissionDenied):
		return fmt.Errorf("%s: %w", show, fs.ErrPermission)
	case errors.As(err, &status) && status.StatusCode != 0:
		return &StatusError{Code: status.StatusCode, URL: show}
	case errors.As(err, &network):
		return explain(ctx, err, show, s.timeout)
	}
	return fmt.Errorf("%s: %w", show, err)
}
