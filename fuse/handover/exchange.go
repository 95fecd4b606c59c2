package handover

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/socket"
)

// connect dials a socket, which errors call what, and makes sure that the other end is the user that it should be. The
// connection's calls end with the context.
func connect(ctx context.Context, what, path string) (conn *net.UnixConn, done func(), err error) {
	c, err := socket.Dial(ctx, path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok || !trusted(socket.Peer(c), path) {
		_ = c.Close()
		return nil, nil, fmt.Errorf("%s %s belongs to a process of another user", what, path)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = u.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = u.SetDeadline(time.Unix(1, 0)) })
	return u, func() { stop(); _ = u.Close() }, nil
}

// trusted reports whether the process behind a socket may have our volumes: one of this process's user, or root's. A
// holder that is root also trusts an agent without privilege, where only that user and root can have made the
// socket.
func trusted(peer *unix.Ucred, path string) bool {
	if socket.MayAsk(peer) {
		return true
	}
	var dir unix.Stat_t
	if peer == nil || os.Geteuid() != 0 || unix.Stat(filepath.Dir(path), &dir) != nil {
		return false
	}
	return dir.Mode&0o022 == 0 && (dir.Uid == 0 || dir.Uid == peer.Uid)
}

// Exchange sends a request on a connection of its own and reads the answer into reply, until the context ends. The
// descriptors of the answer belong to the caller. Errors call the socket what.
func Exchange(
	ctx context.Context, what, path string, version byte, request any, files []*os.File, reply any,
) ([]*os.File, error) {
	conn, done, err := connect(ctx, what, path)
	if err != nil {
		return nil, err
	}
	defer done()
	var got []*os.File
	err = SendMessage(conn, version, request, files)
	if err == nil {
		got, err = ReceiveMessage(conn, version, reply)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return got, err
}

// Await sends a request, receives the answer into reply, where that is not nil, calls connected, and returns when the
// other side has ended or closed the connection. It returns an error where no process is there, or the context ended.
func Await(ctx context.Context, what, path string, version byte, request, reply any, connected func()) error {
	conn, done, err := connect(ctx, what, path)
	if err != nil {
		return err
	}
	defer done()
	if err := SendMessage(conn, version, request, nil); err != nil {
		return err
	}
	if reply != nil {
		files, err := ReceiveMessage(conn, version, reply)
		CloseAll(files)
		if err != nil {
			return err
		}
	}
	connected()
	// Whatever comes, an end or a byte that is not sent, the other side is no longer the one we knew.
	_, _ = conn.Read(make([]byte, 1))
	return ctx.Err()
}
