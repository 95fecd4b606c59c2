package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// writing is a worker and a block to write to it.
type writing struct {
	t      *testing.T
	c      *cluster.Cluster
	m      *Cluster
	server *cluster.Server
	w      *Worker
	s      *source
}

const writeSize = 3<<20 + 11

func newWriting(t *testing.T) *writing {
	t.Helper()
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	return &writing{
		t: t, c: c, m: m, server: c.Workers()[0], w: workerAt(t, m, c.Workers()[0]),
		s: newSource(t, c, m, writeSize),
	}
}

func (x *writing) local() (*LocalBlock, error) {
	return x.w.CreateLocal(within(x.t, 20*time.Second), x.s.block(0), writeSize)
}

func (x *writing) remote() (*BlockWriter, error) {
	return x.w.WriteBlock(within(x.t, 20*time.Second), x.s.block(0), writeSize)
}

// cached checks that the worker has the block, with its content, and the masters know.
func (x *writing) cached() {
	x.t.Helper()
	info, err := x.m.Block(within(x.t, 20*time.Second), x.s.block(0))
	if err != nil || len(info.GetLocations()) != 1 {
		x.t.Errorf("the masters know the block as %v (%v)", info, err)
	}
	r, err := x.w.ReadBlock(within(x.t, 20*time.Second), x.s.block(0), 0, writeSize, nil)
	if err != nil {
		x.t.Error(err)
		return
	}
	if got, err := readAll(r); !errors.Is(err, io.EOF) || !bytes.Equal(got, x.s.content) {
		x.t.Errorf("the worker has %d bytes of the block, or others, and %v", len(got), err)
	}
}

// dropped checks that the worker has nothing of the block, and another may write it, and waits for that.
func (x *writing) dropped() {
	x.t.Helper()
	if _, err := x.w.Locate(within(x.t, 20*time.Second), x.s.block(0)); !NotCached(err) {
		x.t.Errorf("the block is there: %v", err)
	}
	for deadline := time.Now().Add(pace.Limit(10 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		left, err := filepath.Glob(filepath.Join(x.server.TierDir, "alluxioworker", ".tmp_blocks", "*", "*-*"))
		if err != nil {
			x.t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("the worker keeps %q", left)
		}
	}
}

func TestCreateLocal(t *testing.T) {
	x := newWriting(t)
	b, err := x.local()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.Path, x.s.content[:100], 0); err != nil {
		t.Fatal(err)
	}
	b.Abort()
	x.dropped()
	ctx, cancel := context.WithCancel(t.Context())
	if b, err = x.w.CreateLocal(ctx, x.s.block(0), writeSize); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := os.WriteFile(b.Path, x.s.content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := x.local(); !errors.Is(err, fs.ErrExist) || errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("a block that is being written: %v", err)
	}
	if _, err := x.remote(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a block that is being written: %v", err)
	}
	if err := b.Commit(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	b.Abort()
	x.cached()
	if _, err := x.local(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a block that is there: %v", err)
	}
	if x.w.Broken() {
		t.Error("a worker that has a block counts as broken")
	}
}

func TestWriteBlock(t *testing.T) {
	x := newWriting(t)
	b, err := x.remote()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := b.Write(x.s.content[:2<<20]); n != 2<<20 || err != nil {
		t.Fatal(n, err)
	}
	if err := b.Commit(within(t, 20*time.Second)); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("the commit of a block that lacks bytes: %v", err)
	}
	x.dropped()
	if b, err = x.remote(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(x.s.content[:100]); err != nil {
		t.Fatal(err)
	}
	b.Abort()
	x.dropped()
	ctx, cancel := context.WithCancel(t.Context())
	if b, err = x.w.WriteBlock(ctx, x.s.block(0), writeSize); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := x.remote(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a block that is being written: %v", err)
	}
	if n, err := b.Write(append(bytes.Clone(x.s.content), 0)); n != 0 || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("more bytes than the block has: %d, %v", n, err)
	}
	for _, part := range [][]byte{x.s.content[:1], nil, x.s.content[1:100], x.s.content[100:]} {
		if n, err := b.Write(part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := b.Commit(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	b.Abort()
	x.cached()
	if _, err := x.remote(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a block that is there: %v", err)
	}
}

// TestNoRoom asks for more than the tier has. The worker evicts all that it may before it says no.
func TestNoRoom(t *testing.T) {
	x := newWriting(t)
	for range brokenAfter {
		if _, err := x.w.CreateLocal(within(t, 20*time.Second), x.s.block(0), 1<<40); !errors.Is(err, ErrNoRoom) ||
			errors.Is(err, cacheclient.ErrUnavailable) {
			t.Errorf("a file of 1 TiB: %v", err)
		}
		if _, err := x.w.WriteBlock(within(t, 20*time.Second), x.s.block(0), 1<<40); !errors.Is(err, ErrNoRoom) {
			t.Errorf("a block of 1 TiB: %v", err)
		}
	}
	if x.w.Broken() {
		t.Error("a worker whose tier is full counts as broken: it reads as well as ever")
	}
	x.dropped()
}

// TestWorkerDiesInAWrite kills a worker under a writer, who gets an error that says so, and soon.
func TestWorkerDiesInAWrite(t *testing.T) {
	x := newWriting(t)
	x.server = x.c.Workers()[1]
	x.w = workerAt(t, x.m, x.server)
	remote, err := x.remote()
	if err != nil {
		t.Fatal(err)
	}
	local, err := x.w.CreateLocal(within(t, 20*time.Second), x.s.block(0)+1, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.server.Kill(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for err == nil && time.Since(begin) < 10*time.Second {
		_, err = remote.Write(x.s.content[:1])
	}
	if !errors.Is(err, cacheclient.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a write to a dead worker: %v", err)
	}
	if err := local.Commit(within(t, 10*time.Second)); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("a commit at a dead worker: %v", err)
	}
	if took := time.Since(begin); took > pace.Limit(2*time.Second) {
		t.Errorf("that took %v", took)
	}
	remote.Abort()
}

// TestWorkerHangsInAWrite pauses a worker: it takes what the connection holds, and then the writer is told.
func TestWorkerHangsInAWrite(t *testing.T) {
	x := newWriting(t)
	x.server = x.c.Workers()[1]
	x.w = workerAt(t, x.m, x.server)
	const length = 64 << 20
	remote, err := x.w.WriteBlock(within(t, 20*time.Second), x.s.block(0), length)
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Abort()
	if err := x.server.Pause(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	remote.patience = time.Second
	n, err := remote.Write(make([]byte, length))
	if took := time.Since(begin); !errors.Is(err, cacheclient.ErrUnavailable) || took < remote.patience ||
		took > pace.Limit(remote.patience+3*time.Second) || n == length {
		t.Errorf("a worker that hangs took %d bytes: %v after %v", n, err, took)
	}
}
