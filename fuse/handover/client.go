package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/socket"
)

// Client is the holder's side. It may be used by many goroutines; each call is a connection of its own and
// ends with its context.
type Client struct {
	path string
}

// Dial gives a client of the agent's socket at path; it connects with each call.
func Dial(path string) *Client { return &Client{path: path} }

// Attach has the agent serve the volume on the device, which stays the caller's. state is nil for a new
// connection, else what an earlier Attach or Take returned. It returns the state, and returns when the mount
// answers. An error of CodeState says that the connection cannot be taken over.
func (c *Client) Attach(ctx context.Context, v Volume, device, state *os.File) (*os.File, error) {
	files := []*os.File{device}
	if state != nil {
		files = append(files, state)
	}
	reply, err := c.call(ctx, Request{Op: OpAttach, ID: v.ID, Volume: &v, Files: files})
	if err != nil {
		return nil, err
	}
	if len(reply.Files) != 1 {
		CloseAll(reply.Files)
		return nil, fmt.Errorf("the agent answered attach with %d descriptors, not 1", len(reply.Files))
	}
	return reply.Files[0], nil
}

// List gives the ids of the agent's sessions.
func (c *Client) List(ctx context.Context) ([]string, error) {
	reply, err := c.call(ctx, Request{Op: OpList})
	CloseAll(reply.Files)
	return reply.IDs, err
}

// Take gives what the agent holds of a session. The files belong to the caller.
func (c *Client) Take(ctx context.Context, id string) (v Volume, device, state *os.File, err error) {
	reply, err := c.call(ctx, Request{Op: OpTake, ID: id})
	if err != nil {
		return Volume{}, nil, nil, err
	}
	if reply.Volume == nil || len(reply.Files) != maxFiles {
		CloseAll(reply.Files)
		return Volume{}, nil, nil, errors.New("the agent's answer to take is incomplete")
	}
	return *reply.Volume, reply.Files[0], reply.Files[1], nil
}

// Detach returns when the session, whose mount is gone, has ended; the agent severs one that does not end by
// itself. A session that the agent does not have is no error.
func (c *Client) Detach(ctx context.Context, id string) error {
	reply, err := c.call(ctx, Request{Op: OpDetach, ID: id})
	CloseAll(reply.Files)
	if CodeOf(err) == CodeNotFound {
		return nil
	}
	return err
}

// Renew has the agent read the volume's source with the secrets that it has now. All else of the description is as it
// was attached.
func (c *Client) Renew(ctx context.Context, v Volume) error {
	reply, err := c.call(ctx, Request{Op: OpRenew, ID: v.ID, Volume: &v})
	CloseAll(reply.Files)
	return err
}

// Stats tells about one session, from the agent's memory.
func (c *Client) Stats(ctx context.Context, id string) (Stats, error) {
	reply, err := c.call(ctx, Request{Op: OpStats, ID: id})
	CloseAll(reply.Files)
	if err != nil {
		return Stats{}, err
	}
	if reply.Stats == nil {
		return Stats{}, errors.New("the agent's answer to stats is incomplete")
	}
	return *reply.Stats, nil
}

// Watch connects to the agent and calls connected, then waits until the agent has ended or closed the
// connection. It returns an error where nobody answers, or ctx ended.
func (c *Client) Watch(ctx context.Context, connected func()) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := send(conn, Request{Op: OpWatch}, nil); err != nil {
		return err
	}
	connected()
	// Whatever comes, an end or a byte that nobody should send, the agent is no longer the one we knew.
	_, _ = conn.Read(make([]byte, 1))
	return ctx.Err()
}

// dial connects, and makes sure that the other end is who it should be.
func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	conn, err := socket.Dial(ctx, c.path)
	if err != nil {
		return nil, fmt.Errorf("the agent's socket %s: %w", c.path, err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok || !trusted(socket.Peer(conn), c.path) {
		_ = conn.Close()
		return nil, fmt.Errorf("the agent's socket %s belongs to a process of another user", c.path)
	}
	return u, nil
}

// trusted reports whether the process behind a socket may have our volumes: one of this process's user, or root's. A
// holder that is root also trusts an agent without privilege, where nobody but that user and root can have made the
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

// call makes one request.
func (c *Client) call(ctx context.Context, r Request) (Reply, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return Reply{}, err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var reply Reply
	err = send(conn, r, r.Files)
	if err == nil {
		reply.Files, err = receive(conn, &reply)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Reply{}, fmt.Errorf("%s %s: %w", r.Op, r.ID, err)
	}
	if reply.Error != "" {
		CloseAll(reply.Files)
		return Reply{}, fmt.Errorf("%s %s: %w", r.Op, r.ID, &Error{Code: reply.Code, Message: reply.Error})
	}
	return reply, nil
}
