package rpc

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// TestRedialling has a server appear at an address that refused connections a moment ago: who asks who leads finds it
// at once, and a call that was about to use the old connection may be repeated, and was not made after the release.
func TestRedialling(t *testing.T) {
	noMoreGoroutines(t)
	l := listen(t)
	addr := l.Addr().String()
	_ = l.Close()
	e := newEndpoint(addr, identity{transport: insecure.NewCredentials()}, largestMessage)
	t.Cleanup(e.Close)
	if err := e.leads(within(t, 5*time.Second)); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Fatal(err)
	}
	old, err := e.connection()
	if err != nil {
		t.Fatal(err)
	}
	if state := old.GetState(); state != connectivity.TransientFailure {
		t.Fatalf("the connection is %v: this tests nothing", state)
	}
	s := grpc.NewServer()
	versioned{version: "2.9.6"}.register(s)
	again := listenAt(t, addr)
	go func() { _ = s.Serve(again) }()
	t.Cleanup(s.Stop)
	if err := e.leads(within(t, 5*time.Second)); err != nil {
		t.Errorf("a master that is back: %v", err)
	}
	_, err = wire.NewServiceVersionClientServiceClient(old).GetServiceVersion(within(t, 5*time.Second),
		&wire.GetServiceVersionPRequest{})
	if err = e.explain(err); !errors.Is(err, cacheclient.ErrUnavailable) || errors.Is(err, cacheclient.ErrClosed) {
		t.Errorf("a call on a connection that was replaced: %v", err)
	}
}

// TestExplain checks what is told apart by the text alone.
func TestExplain(t *testing.T) {
	for _, test := range []struct {
		code codes.Code
		text string
		is   error
		says string
	}{
		{
			codes.Unavailable, "Alluxio master is in safe mode. Please try again later.", cacheclient.ErrUnavailable,
			"m:1 does not answer: Alluxio master is in safe mode. Please try again later.",
		},
		{
			codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)", errLong,
			"m:1: the server tells more than is taken at once: grpc: received message larger than max (5 vs. 4)",
		},
		{
			codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR", cacheclient.ErrUnavailable,
			"m:1 broke the call off: stream terminated by RST_STREAM with error code: INTERNAL_ERROR",
		},
		{codes.Internal, "a bug", nil, "m:1: Internal: a bug"},
		{
			codes.Canceled, "CANCELLED by the server", cacheclient.ErrUnavailable,
			"m:1 ended the call: CANCELLED by the server",
		},
		{
			codes.Unavailable,
			`connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:1: i/o timeout"`,
			cacheclient.ErrUnavailable, "m:1 cannot be connected to: dial tcp 10.0.0.1:1: i/o timeout",
		},
		{
			codes.Unavailable, "error reading from server: EOF", cacheclient.ErrUnavailable,
			"m:1 closed the connection without a word",
		},
		{codes.Unknown, "a Java exception", nil, "m:1: Unknown: a Java exception"},
	} {
		err := explain("m:1", status.Error(test.code, test.text))
		if err.Error() != test.says || test.is != nil && !errors.Is(err, test.is) ||
			test.is == nil && unavailable(err) {
			t.Errorf("%v %q is %q, wanted %q and %v", test.code, test.text, err, test.says, test.is)
		}
	}
	if err := explain("m:1", nil); err != nil {
		t.Errorf("no error is %v", err)
	}
}
