package embedded

import (
	"context"
	"io"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// halting is a source in memory whose bodies stop at an offset until they may go on, and which may have no ranges.
type halting struct {
	*memory

	at    int64
	goOn  chan struct{}
	whole bool
}

func (h *halting) Open(ctx context.Context, info cacheclient.Info, off, n int64) (*ufs.Body, error) {
	if h.whole {
		off, n = 0, info.Size
	}
	b, err := h.memory.Open(ctx, info, off, n)
	if err == nil && h.goOn != nil {
		b.ReadCloser = &halted{ReadCloser: b.ReadCloser, ctx: ctx, left: h.at - off, goOn: h.goOn}
	}
	return b, err
}

type halted struct {
	io.ReadCloser

	ctx  context.Context
	left int64
	goOn chan struct{}
}

func (h *halted) Read(p []byte) (int, error) {
	if h.left <= 0 {
		if err := waitFor(h.ctx, h.goOn); err != nil {
			return 0, err
		}
		return h.ReadCloser.Read(p)
	}
	n, err := h.ReadCloser.Read(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	return n, err
}
