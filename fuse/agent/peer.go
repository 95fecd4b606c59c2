package agent

import (
	"context"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/socket"
)

// peerKey is the context key of a connection's peer.
type peerKey struct{}

// withPeer notes the user and process at the other end of the connection. A peer that cannot be told is nil.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, socket.Peer(c))
}

// checkPeer refuses a connection of another user than ours and root. The socket's mode does
// so already; this holds where the socket was opened wider, or a descriptor passed on.
func checkPeer(ctx context.Context) error {
	cred, _ := ctx.Value(peerKey{}).(*unix.Ucred)
	if !socket.MayAsk(cred) {
		return errStatus(http.StatusForbidden, "only the user who runs this process, and root, may ask it")
	}
	return nil
}
