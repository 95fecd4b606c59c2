package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient"
)

// Unreachable says that a server did not answer, or that what answered is no such server. It is
// cacheclient.ErrUnavailable.
//
//nolint:errname // it is a state of a server, and reads as one: rpc.Unreachable
type Unreachable struct {
	// Addr is host:port, or all masters separated by commas.
	Addr string
	// Why completes a sentence that begins with the address.
	Why string

	// busy says that the server is the right one, and cannot answer at the moment.
	busy bool
}

// Error is one sentence.
func (e *Unreachable) Error() string { return e.Addr + " " + e.Why }

// Unwrap is cacheclient.ErrUnavailable.
func (e *Unreachable) Unwrap() error { return cacheclient.ErrUnavailable }

var (
	// ErrNoRoom says that a worker's tiers have no room for a block, even after evicting what they may.
	ErrNoRoom = errors.New("the worker has no room for the block")
	// ErrShort says that a worker ended a block early and called that a success: what it has of the block is damaged.
	ErrShort = errors.New("the worker has fewer bytes of the block than the block has")

	// ErrRefused says that the leading master answers, and refused this call again and again: it says nothing of
	// others. It comes with cacheclient.ErrUnavailable.
	ErrRefused = errors.New("the leading master refuses this call")

	// errNoSuchCall says that a server does not know the call: a master that does not lead, or no Alluxio at all.
	errNoSuchCall = errors.New("the server does not know the call")
	// errLong says that an answer is longer than it may be.
	errLong = errors.New("the server tells more than is taken at once")
	// errReleased says that the cluster was released while the call was made.
	errReleased = fmt.Errorf("the connections to the cluster: %w", cacheclient.ErrClosed)
)

// explain turns a status into an error that says what it means to a file system. Other errors are kept.
func explain(addr string, err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	text := brief(st.Message())
	switch st.Code() {
	case codes.NotFound:
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrNotExist, text)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrPermission, text)
	case codes.AlreadyExists:
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrExist, text)
	case codes.InvalidArgument:
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrInvalid, text)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", addr, context.DeadlineExceeded)
	case codes.Unimplemented:
		return fmt.Errorf("%s: %w: %s", addr, errNoSuchCall, text)
	case codes.Unavailable:
		// A leader in safe mode waits for its workers, and tells nothing of them until then.
		return &Unreachable{Addr: addr, Why: plain(text), busy: strings.Contains(text, "safe mode")}
	case codes.ResourceExhausted:
		if strings.Contains(text, "larger than max") {
			return fmt.Errorf("%s: %w: %s", addr, errLong, text)
		}
		return &Unreachable{Addr: addr, Why: "is too busy: " + text, busy: true}
	case codes.Canceled:
		return explainCancelled(addr, text)
	case codes.Internal:
		return explainInternal(addr, text)
	}
	return fmt.Errorf("%s: %s: %s", addr, st.Code(), text)
}

// longestText is how much of a server's message is kept, in bytes: it goes into logs.
const longestText = 1000

// brief is a server's message in a length that can be read.
func brief(text string) string {
	text = strings.TrimSpace(text)
	return text[:min(len(text), longestText)]
}

// Misled reports whether an error says that a server told, or sent, what cannot be.
func Misled(err error) bool { return errors.Is(err, errClaim) }

// explainCancelled tells apart who ended a call.
func explainCancelled(addr, text string) error {
	if text == context.Canceled.Error() {
		return fmt.Errorf("%s: %w", addr, context.Canceled)
	}
	return &Unreachable{Addr: addr, Why: "ended the call: " + text}
}

// explainInternal reads what servers and the transport report as internal errors and is none. That a worker has a block
// already, or that somebody else is writing it, is known by these texts only.
func explainInternal(addr, text string) error {
	switch {
	case strings.Contains(text, "Temp blockId ") && strings.Contains(text, "is not available"):
		return fmt.Errorf("%s: %w: %s", addr, fs.ErrExist, text)
	case strings.Contains(text, "RST_STREAM"), strings.Contains(text, "unexpected EOF"):
		return &Unreachable{Addr: addr, Why: "broke the call off: " + text}
	}
	return fmt.Errorf("%s: %s: %s", addr, codes.Internal, text)
}

// plain completes a sentence that begins with the address from what gRPC reports of a connection.
func plain(text string) string {
	_, cause, found := strings.Cut(text, `desc = "`)
	cause = strings.TrimSuffix(strings.TrimPrefix(cause, "transport: "), `"`)
	if !found {
		cause = text
	}
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	after := func(part string) string {
		_, rest, _ := strings.Cut(cause, part+": ")
		return rest
	}
	switch {
	case has("connection refused"):
		return "refuses the connection"
	case has("first record does not look like a TLS handshake"):
		return "does not speak TLS"
	case has("authentication handshake failed"):
		return "cannot be trusted: " + after("authentication handshake failed")
	case has("HTTP/1.1 header", "unexpected HTTP status", "unexpected content-type"):
		return "is a web server and no Alluxio server"
	case has("Error while dialing"):
		return "cannot be connected to: " + after("Error while dialing")
	case has("use of closed network connection", "i/o timeout"):
		// The limit of an attempt to connect.
		return "accepts connections and does not answer"
	case has("server preface") && !has("EOF", "reset by peer", "broken pipe"):
		return "does not speak gRPC: " + cause
	case has("EOF", "reset by peer", "broken pipe"):
		return "closed the connection without a word"
	}
	return "does not answer: " + cause
}

// unavailable reports whether another attempt, perhaps with another server, may succeed.
func unavailable(err error) bool {
	return errors.Is(err, cacheclient.ErrUnavailable)
}

// busy reports whether the server that failed is the right one to ask again.
func busy(err error) bool {
	var u *Unreachable
	return errors.As(err, &u) && u.busy
}
