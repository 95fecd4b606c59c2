package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// session is one authentication: a stream that is open for as long as the server knows the id.
type session struct {
	id     string
	cancel context.CancelFunc
	// done is closed when the stream has ended, and the id is of no use any more.
	done chan struct{}
}

// ended tells whether the server has ended the authentication, or we have.
func (s *session) ended() bool {
	if s == nil {
		return true
	}
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// end closes the stream and waits for it. nil has none.
func (s *session) end() {
	if s == nil {
		return
	}
	s.cancel()
	<-s.done
}

// errNoAuthentication says that the server runs with alluxio.security.authentication.type=NOSASL.
var errNoAuthentication = errors.New("the server wants no authentication")

// authenticate opens the stream that registers a new id, by the mechanism PLAIN, which Alluxio calls SIMPLE. The
// stream outlives ctx: a goroutine owned by the session receives from it until its end.
func authenticate(ctx context.Context, conn *grpc.ClientConn, addr string, security Security) (*session, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	// A handshake that is given up must not leave its stream.
	stop := context.AfterFunc(ctx, cancel)
	timer := time.AfterFunc(authenticatePatience, cancel)
	s := &session{id: uuid.NewString(), cancel: cancel, done: make(chan struct{})}
	stream, err := handshake(life, conn, s.id, security)
	inTime := timer.Stop()
	if ours := stop(); err == nil && !ours {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		return nil, explainHandshake(ctx, addr, err, inTime)
	}
	go func() {
		defer close(s.done)
		defer cancel()
		// The server says nothing more; what comes is the end.
		_, _ = stream.Recv()
	}()
	return s, nil
}

func handshake(ctx context.Context, conn *grpc.ClientConn, id string, security Security) (grpc.BidiStreamingClient[wire.SaslMessage, wire.SaslMessage], error) {
	stream, err := wire.NewSaslAuthenticationServiceClient(conn).Authenticate(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&wire.SaslMessage{
		MessageType: wire.SaslMessageType_CHALLENGE.Enum(), Message: security.payload(), ClientId: &id,
		AuthenticationScheme: wire.ChannelAuthenticationScheme_SIMPLE.Enum(), ChannelRef: proto.String("millrace"),
	})
	reply, recvErr := stream.Recv()
	if recvErr != nil {
		// It tells more than the failure to send does.
		return nil, recvErr
	}
	if err != nil {
		return nil, err
	}
	if reply.GetMessageType() != wire.SaslMessageType_SUCCESS {
		return nil, status.Error(codes.Unauthenticated, "the server asks for more than a user")
	}
	return stream, nil
}

// explainHandshake says in a sentence why there is no session.
func explainHandshake(ctx context.Context, addr string, err error, inTime bool) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", addr, ctx.Err())
	case !inTime:
		return &Unreachable{Addr: addr, Why: fmt.Sprintf("accepts connections and did not answer within %v", authenticatePatience)}
	case status.Code(err) == codes.Unimplemented:
		return errNoAuthentication
	case status.Code(err) == codes.Unauthenticated, status.Code(err) == codes.PermissionDenied:
		return fmt.Errorf("%s refuses the user: %w: %s", addr, fs.ErrPermission, status.Convert(err).Message())
	}
	return explain(addr, err)
}
