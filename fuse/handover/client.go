package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// agentSocket is what errors call the socket that a Client asks.
const agentSocket = "the agent's socket"

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
	if reply.Volume == nil || len(reply.Files) != MaxFiles {
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

// Lost tells the agent which pods have to be restarted: all of them, in place of what it was told before.
func (c *Client) Lost(ctx context.Context, pods []LostPod) error {
	reply, err := c.call(ctx, Request{Op: OpLost, Lost: pods})
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
// connection. It returns an error where no process answers, or ctx ended.
func (c *Client) Watch(ctx context.Context, connected func()) error {
	return Await(ctx, agentSocket, c.path, version, Request{Op: OpWatch}, nil, connected)
}

// call makes one request.
func (c *Client) call(ctx context.Context, r Request) (Reply, error) {
	var reply Reply
	files, err := Exchange(ctx, agentSocket, c.path, version, r, r.Files, &reply)
	reply.Files = files
	if err != nil {
		return Reply{}, fmt.Errorf("%s %s: %w", r.Op, r.ID, err)
	}
	if reply.Error != "" {
		CloseAll(reply.Files)
		return Reply{}, fmt.Errorf("%s %s: %w", r.Op, r.ID, &Error{Code: reply.Code, Message: reply.Error})
	}
	return reply, nil
}
