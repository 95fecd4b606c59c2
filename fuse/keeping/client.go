package keeping

import (
	"context"
	"fmt"
	"os"

	"millrace.io/millrace/fuse/handover"
)

// keeperSocket is what errors call the socket that a Client asks.
const keeperSocket = "the keeper's socket"

// Client is the driver's side. It may be used by many goroutines; each call is a connection of its own and ends with
// its context.
type Client struct {
	path string
}

// Dial gives a client of the keeper's socket at path; it connects with each call.
func Dial(path string) *Client { return &Client{path: path} }

// Put has the keeper keep copies of a session's device and state. Both stay the caller's.
func (c *Client) Put(ctx context.Context, id, mount string, device, state *os.File) error {
	_, files, err := c.call(ctx, request{Op: opPut, ID: id, Mount: mount}, device, state)
	handover.CloseAll(files)
	return err
}

// Get gives what is kept of a volume, and of which mount it is. The files belong to the caller. Nothing is an error of
// [handover.CodeNotFound].
func (c *Client) Get(ctx context.Context, id string) (mount string, device, state *os.File, err error) {
	r, files, err := c.call(ctx, request{Op: opGet, ID: id})
	if err != nil {
		return "", nil, nil, err
	}
	if len(files) != handles {
		handover.CloseAll(files)
		return "", nil, nil, fmt.Errorf("the keeper answered with %d descriptors, not %d", len(files), handles)
	}
	return r.Mount, files[0], files[1], nil
}

// Drop has the keeper close what it keeps of a volume, where that is of the mount, or mount is "". Nothing is no error.
func (c *Client) Drop(ctx context.Context, id, mount string) error {
	_, files, err := c.call(ctx, request{Op: opDrop, ID: id, Mount: mount})
	handover.CloseAll(files)
	return err
}

// List tells what is kept.
func (c *Client) List(ctx context.Context) ([]Kept, error) {
	r, files, err := c.call(ctx, request{Op: opList})
	handover.CloseAll(files)
	return r.Kept, err
}

// Leave tells the keeper that this driver is about to end. It is an error where the keeper is about to, or not there.
func (c *Client) Leave(ctx context.Context) error {
	_, files, err := c.call(ctx, request{Op: opLeave})
	handover.CloseAll(files)
	return err
}

// Watch connects to the keeper and calls connected, then waits until the keeper has ended or closed the connection. It
// returns an error where no process answers, or the context ended.
func (c *Client) Watch(ctx context.Context, connected func()) error {
	return handover.Await(ctx, keeperSocket, c.path, version, request{Op: opWatch}, &reply{}, connected)
}

// call makes one request.
func (c *Client) call(ctx context.Context, r request, files ...*os.File) (reply, []*os.File, error) {
	var answer reply
	got, err := handover.Exchange(ctx, keeperSocket, c.path, version, r, files, &answer)
	if err == nil && answer.Error != "" {
		handover.CloseAll(got)
		got, err = nil, &handover.Error{Code: answer.Code, Message: answer.Error}
	}
	if err != nil {
		return reply{}, nil, fmt.Errorf("%s %s: %w", r.Op, r.ID, err)
	}
	return answer, got, nil
}
