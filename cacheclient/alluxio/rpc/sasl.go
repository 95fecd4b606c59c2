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
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// authenticatePatience bounds one handshake, the connection to the server included.
const authenticatePatience = 5 * time.Second

// idHeader carries the channel id in every call.
const idHeader = "channel-id"

// session is one authentication: an id that the server knows for as long as a stream is open.
type session struct {
	id string
	// over is done when the stream has ended, by the server or by end.
	over context.Context
	end  context.CancelFunc
}

// outgoing is ctx with the channel id. A nil session, where the server wants none, adds nothing.
func (s *session) outgoing(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(context.WithValue(ctx, sessionKey{}, s), idHeader, s.id)
}

// sessionKey is the key of the session in the context of a call.
type sessionKey struct{}

// sessionOf is the session that a call goes by, nil where it needs none.
func sessionOf(ctx context.Context) *session {
	s, _ := ctx.Value(sessionKey{}).(*session)
	return s
}

// ended says that the server does not know the id any more.
func (s *session) ended() bool { return s != nil && s.over.Err() != nil }

// handshake is an authentication under way, for all who wait for it.
type handshake struct {
	done chan struct{}
	// session and err are valid when done is closed; both are nil where the server wants no authentication.
	session *session
	err     error
}

// authenticate makes one handshake, lets go of those who wait for it, and keeps the session's stream open until its
// end. It is the endpoint's goroutine, and lasts as long as the session.
func (e *Endpoint) authenticate(h *handshake) {
	defer e.work.Done()
	life, end := context.WithCancel(e.life)
	defer end()
	s := &session{id: uuid.NewString(), over: life, end: end}
	patience := time.AfterFunc(authenticatePatience, end)
	stream, err := e.shakeHands(life, s.id)
	if inTime := patience.Stop(); !inTime {
		err = &Unreachable{Addr: e.addr, Why: fmt.Sprintf("did not answer within %v", authenticatePatience)}
	}
	if err != nil {
		e.settle(h, nil, e.explainHandshake(err))
		return
	}
	e.settle(h, s, nil)
	// The server says nothing more; what comes is the end.
	_, _ = stream.Recv()
}

// settle takes note of a handshake's outcome.
func (e *Endpoint) settle(h *handshake, s *session, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open = errors.Is(err, errNoAuthentication)
	if e.open {
		err = nil
	}
	h.session, h.err = s, err
	e.session, e.handshake = s, nil
	close(h.done)
}

// shakeHands opens the stream that registers the id, by the mechanism PLAIN, which Alluxio calls SIMPLE.
func (e *Endpoint) shakeHands(ctx context.Context, id string) (grpc.BidiStreamingClient[wire.SaslMessage,
	wire.SaslMessage], error,
) {
	conn, err := e.connection()
	if err != nil {
		return nil, err
	}
	stream, err := wire.NewSaslAuthenticationServiceClient(conn).Authenticate(ctx)
	if err != nil {
		return nil, err
	}
	sendErr := stream.Send(&wire.SaslMessage{
		MessageType: wire.SaslMessageType_CHALLENGE.Enum(), Message: e.who.payload, ClientId: &id,
		AuthenticationScheme: wire.ChannelAuthenticationScheme_SIMPLE.Enum(), ChannelRef: proto.String("millrace"),
	})
	reply, err := stream.Recv()
	if err == nil {
		err = sendErr
	}
	if err != nil {
		return nil, err
	}
	if reply.GetMessageType() != wire.SaslMessageType_SUCCESS {
		return nil, status.Error(codes.Unauthenticated, "the server asks for more than a user and a password")
	}
	return stream, nil
}

// errNoAuthentication says that the server runs with alluxio.security.authentication.type=NOSASL.
var errNoAuthentication = errors.New("the server wants no authentication")

// explainHandshake says in a sentence why there is no session.
func (e *Endpoint) explainHandshake(err error) error {
	if e.life.Err() != nil {
		return e.over()
	}
	switch status.Code(err) {
	case codes.Unimplemented:
		return errNoAuthentication
	case codes.Unauthenticated, codes.PermissionDenied:
		return fmt.Errorf("%s refuses the user: %w: %s", e.addr, fs.ErrPermission, brief(status.Convert(err).Message()))
	}
	return explain(e.addr, err)
}
