package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/socket"
)

// answerTimeout is how long a request that is answered from memory may take where the
// caller's context has no deadline of its own.
const answerTimeout = 5 * time.Second

// Client asks a serving process through its socket. It may be used by many goroutines.
type Client struct {
	socket string
	http   *http.Client
}

// Dial gives a client of the socket at path; it connects with the first request.
func Dial(path string) *Client {
	return &Client{socket: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return socket.Dial(ctx, path)
		},
		IdleConnTimeout: answerTimeout,
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Mounts tells about every mount that the process serves.
func (c *Client) Mounts(ctx context.Context) ([]MountStatus, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var mounts []MountStatus
	if err := c.call(ctx, http.MethodGet, pathMounts, nil, &mounts); err != nil {
		return nil, err
	}
	return mounts, nil
}

// Lost tells which pods of the node have to be restarted.
func (c *Client) Lost(ctx context.Context) ([]handover.LostPod, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var pods []handover.LostPod
	return pods, c.call(ctx, http.MethodGet, pathLost, nil, &pods)
}

// Health asks whether the process answers.
func (c *Client) Health(ctx context.Context) (Health, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var h Health
	return h, c.call(ctx, http.MethodGet, pathHealth, nil, &h)
}

// Blocks tells where each block of a file is cached.
func (c *Client) Blocks(ctx context.Context, path string) ([]cacheclient.Block, error) {
	var blocks []cacheclient.Block
	return blocks, c.call(ctx, http.MethodGet, pathBlocks+"?path="+url.QueryEscape(path), nil, &blocks)
}

// Free drops what is cached of a file or a tree and returns the bytes freed.
func (c *Client) Free(ctx context.Context, path string) (int64, error) {
	var answer FreeAnswer
	err := c.call(ctx, http.MethodPost, pathFree, FreeRequest{Path: path}, &answer)
	return answer.Freed, err
}

// Unmount ends the mount on dir.
func (c *Client) Unmount(ctx context.Context, dir string, force bool) error {
	return c.call(ctx, http.MethodPost, pathUnmount, UnmountRequest{Dir: dir, Force: force}, &UnmountAnswer{})
}

// Slowest tells the slowest requests of the last minute, at and below path, "" for all that the process serves.
func (c *Client) Slowest(ctx context.Context, path string) ([]TraceEvent, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	query := ""
	if path != "" {
		query = "?path=" + url.QueryEscape(path)
	}
	var events []TraceEvent
	return events, c.call(ctx, http.MethodGet, pathSlowest+query, nil, &events)
}

// Trace calls begun when nothing is missed any more, and each with every request of the kernel that ends, as chosen by
// query, whose keys are those of GET /v1/trace. It ends with ctx, which is no error, with an error of each, or when the
// process stops answering.
func (c *Client) Trace(ctx context.Context, query url.Values, begun func(), each func(TraceEvent) error) error {
	resp, err := c.do(ctx, http.MethodGet, pathTrace+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	begun()
	lines := json.NewDecoder(resp.Body)
	for {
		var e TraceEvent
		if err := lines.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the process behind the socket %s stopped answering: %w", c.socket, noEOF(err))
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

// Warm fetches a file or a tree and calls progress with each line, the last one included, which
// is also returned. Ending ctx stops the fetching. Files that failed are no error: the last
// line counts them.
func (c *Client) Warm(ctx context.Context, req WarmRequest, progress func(WarmProgress)) (WarmProgress, error) {
	resp, err := c.do(ctx, http.MethodPost, pathWarm, req)
	if err != nil {
		return WarmProgress{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := json.NewDecoder(resp.Body)
	for {
		var p WarmProgress
		if err := lines.Decode(&p); err != nil {
			if ctx.Err() != nil {
				return WarmProgress{}, ctx.Err()
			}
			return WarmProgress{}, fmt.Errorf("the process that serves the mount stopped answering: %w", noEOF(err))
		}
		progress(p)
		if p.Done {
			return p, nil
		}
	}
}

// noEOF makes the end of a stream that should have gone on an error of its own.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// bounded gives ctx the deadline answerTimeout where it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, answerTimeout)
}

// call makes one request and decodes its answer.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("socket %s: answer to %s: %w", c.socket, path, err)
	}
	return nil
}

// do makes one request; an answer of 400 or more is the error that it carries.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	// The host is only a form: every connection goes to the socket.
	req, err := http.NewRequestWithContext(ctx, method, "http://millrace"+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL in url.Error would name a host that does not exist.
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return nil, fmt.Errorf("socket %s: %w", c.socket, err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var refused ErrorAnswer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&refused); err != nil || refused.Error == "" {
		refused.Error = fmt.Sprintf("socket %s: %s: %s", c.socket, path, resp.Status)
	}
	return nil, errors.New(refused.Error)
}
