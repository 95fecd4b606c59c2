package ufs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"millrace.io/millrace/cacheclient"
)

// errEnough ends a listing that has shown what it had to.
var errEnough = errors.New("enough")

// Open understands the source and its options, and unless that is deferred proves that it answers and lists, by
// reading the beginning of its root. An error is one sentence for the user.
func Open(ctx context.Context, source string, opts Options) (Store, error) {
	src, err := parseSource(source)
	if err != nil {
		return nil, err
	}
	if src.scheme == schemeRemote && !opts.Remotes {
		return nil, fmt.Errorf("source %q is a connection string of rclone, which is read through millrace gateway "+
			"only; give https://host/path/, s3://bucket/prefix or /a/directory", src.show)
	}
	opts = opts.defaults()
	values, err := opts.resolve(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", src.show, err)
	}
	noticed := &notes{log: opts.Log, source: src.show}
	var store Store
	switch src.scheme {
	case schemeHTTP:
		store, err = newHTTPStore(src, values, opts, noticed)
	case schemeS3:
		store, err = newS3Store(ctx, src, values, opts)
	case schemeRemote:
		store, err = newRemoteStore(ctx, src, values, opts)
	default:
		store, err = newLocalStore(src, values, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", src.show, err)
	}
	border := &guarded{Store: store, notes: noticed}
	if opts.Deferred {
		return border, nil
	}
	if err := prove(ctx, border, src); err != nil {
		_ = store.Close()
		return nil, fmt.Errorf("source %q: %w", src.show, err)
	}
	if h, ok := store.(*httpStore); ok {
		h.greet()
	}
	return border, nil
}

// Name is a source as Open takes it, without secrets, for people. An error is one sentence for the user.
func Name(source string) (string, error) {
	src, err := parseSource(source)
	return src.show, err
}

// prove lists the root until its first entry.
func prove(ctx context.Context, store Store, src source) error {
	err := store.List(ctx, "", func(cacheclient.Info) error { return errEnough })
	if err == nil || errors.Is(err, errEnough) {
		return nil
	}
	var status *StatusError
	var typed *otherTypeError
	var file *fileRootError
	switch {
	case errors.As(err, &file):
		return &plainError{what: src.isFile(), err: err}
	case errors.As(err, &status) && status.Reason == "AccessDenied":
		return fmt.Errorf("it may not be listed, which needs the right s3:ListBucket: %w", err)
	case errors.As(err, &status):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return &plainError{what: "it does not exist", err: err}
	case errors.Is(err, cacheclient.ErrNotDir):
		return &plainError{what: src.isFile(), err: err}
	case errors.As(err, &typed):
		what := fmt.Sprintf("it is of the type %q and no directory index; %s", typed.contentType, src.instead())
		return &plainError{what: what, err: err}
	}
	return err
}

// plainError says in plain words what err is.
type plainError struct {
	what string
	err  error
}

func (e *plainError) Error() string { return e.what }
func (e *plainError) Unwrap() error { return e.err }
