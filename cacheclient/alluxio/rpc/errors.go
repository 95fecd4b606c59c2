package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient"
)

// Unreachable says that a server did not answer, or that what answered is no such server. It is
// cacheclient.ErrUnavailable.
type Unreachable struct {
	// Addr is host:port, or all masters separated by commas.
	Addr string
	// Why completes a sentence that begins with the address.
	Why string
}

// Error is one sentence.
func (e *Unreachable) Error() string { return e.Addr + " " + e.Why }

// Unwrap is cacheclient.ErrUnavailable.
func (e *Unreachable) Unwrap() error { return cacheclient.ErrUnavailable }

// errNoSuchCall says that a server does not know the call: a master that does not lead, or no Alluxio at all.
var errNoSuchCall = errors.New("the server does not know the call")

// explain turns a status into an error that says what it means to a file system. Other errors are kept.
func explain(addr string, err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := strings.TrimSpace(st.Message())
	switch st.Code() {
	case codes.NotFound:
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrNotExist, text)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrPermission, text)
	case codes.AlreadyExists:
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrExist, text)
	case codes.Canceled:
		if text == context.Canceled.Error() {
			return fmt.Errorf("%s: %w", addr, context.Canceled)
		}
		return &Unreachable{Addr: addr, Why: "ended the call: " + text}
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", addr, context.DeadlineExceeded)
	case codes.Unimplemented:
		return fmt.Errorf("%s: %w: %s", addr, errNoSuchCall, text)
	case codes.Unavailable, codes.ResourceExhausted:
		return &Unreachable{Addr: addr, Why: "does not answer: " + plain(text)}
	}
	return fmt.Errorf("%s: %s: %s", addr, st.Code(), text)
}

// plain says what gRPC reports of a connection in fewer words.
func plain(text string) string {
	switch {
	case strings.Contains(text, "connection refused"):
		return "it refuses the connection"
	case strings.Contains(text, "server preface"), strings.Contains(text, "malformed HTTP"), strings.Contains(text, "http2: "):
		return "it does not speak gRPC (" + text + ")"
	}
	return text
}

// unavailable tells whether another attempt, perhaps with another server, may succeed.
func unavailable(err error) bool {
	return errors.Is(err, cacheclient.ErrUnavailable)
}
