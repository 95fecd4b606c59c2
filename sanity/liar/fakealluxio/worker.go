package fakealluxio

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// chunk is how many bytes one message has.
const chunk = 256 << 10

// ReadBlock sends a range of a block: from the tier, or as it is in the directory now where the client says where
// that is.
func (f *Fake) ReadBlock(s grpc.BidiStreamingServer[wire.ReadRequest, wire.ReadResponse]) error {
	q, err := s.Recv()
	if err != nil {
		return err
	}
	d := f.dice("ReadBlock", f.pathOf(q.GetBlockId()))
	if err := f.refuse(s.Context(), d); err != nil {
		return err
	}
	from, at, err := f.content(q.GetBlockId(), q.GetOpenUfsBlockOptions())
	if err != nil {
		return asStatus(err)
	}
	defer func() { _ = from.Close() }()
	return f.send(s, d, io.NewSectionReader(from, at+q.GetOffset(), q.GetLength()))
}

// content is the file that has a block, and where in it.
func (f *Fake) content(id int64, under *wire.OpenUfsBlockOptions) (*os.File, int64, error) {
	if file, err := os.Open(f.tiered(id)); err == nil || under == nil {
		return file, 0, err
	}
	file, err := os.Open(f.local(f.pathOf(id)))
	return file, under.GetOffsetInFile(), err
}

// send sends what the reader has, and lies on the way.
func (f *Fake) send(
	s grpc.BidiStreamingServer[wire.ReadRequest, wire.ReadResponse], d *rand.Rand, from io.Reader,
) error {
	lie := -1
	if d != nil {
		lie = d.IntN(12)
	}
	buf := make([]byte, chunk)
	for n := 0; ; n++ {
		read, err := io.ReadFull(from, buf)
		if read > 0 {
			if err := f.lieOfChunk(s, d, lie, n, buf[:read]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if lie == 0 {
				// More than was asked for.
				return s.Send(&wire.ReadResponse{Chunk: &wire.Chunk{Data: buf}})
			}
			return nil
		case err != nil:
			return asStatus(err)
		}
	}
}

// lieOfChunk sends the n-th chunk, or what is not one.
func (f *Fake) lieOfChunk(
	s grpc.BidiStreamingServer[wire.ReadRequest, wire.ReadResponse], d *rand.Rand, lie, n int, data []byte,
) error {
	switch {
	case lie == 1 && n == 1:
		return status.Error(codes.Unavailable, "the block is read no further")
	case lie == 2 && n == 1:
		return status.Error(codes.Internal, "a lie in the middle")
	case lie == 3:
		if err := f.sleep(s.Context(), time.Duration(d.IntN(900))*time.Millisecond); err != nil {
			return err
		}
	case lie == 4 && n == 1:
		if err := f.sleep(s.Context(), longest); err != nil {
			return err
		}
	case lie == 5:
		for range 1000 {
			if err := s.Send(&wire.ReadResponse{Chunk: &wire.Chunk{}}); err != nil {
				return err
			}
		}
	case lie == 6 && n == 1:
		if err := s.Send(&wire.ReadResponse{}); err != nil {
			return err
		}
	}
	return s.Send(&wire.ReadResponse{Chunk: &wire.Chunk{Data: data}})
}

// OpenLocalBlock tells the file of a block.
func (f *Fake) OpenLocalBlock(s grpc.BidiStreamingServer[wire.OpenLocalBlockRequest,
	wire.OpenLocalBlockResponse],
) error {
	q, err := s.Recv()
	if err != nil {
		return err
	}
	d := f.dice("OpenLocalBlock", f.pathOf(q.GetBlockId()))
	if err := f.refuse(s.Context(), d); err != nil {
		return err
	}
	name := f.tiered(q.GetBlockId())
	switch {
	case d != nil && d.IntN(4) == 0:
		name = pick(d, Paths(q.GetBlockId())...)
	case !f.has(q.GetBlockId()):
		return status.Error(codes.NotFound, "the block is not here")
	}
	if err := s.Send(&wire.OpenLocalBlockResponse{Path: &name}); err != nil {
		return err
	}
	_, _ = s.Recv()
	return nil
}

// begin claims a block for its writer; done gives it back.
func (f *Fake) begin(id int64) (done func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writing[id] || f.has(id) {
		return nil, status.Error(codes.AlreadyExists, "the block is here, or being written")
	}
	f.writing[id] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.writing, id)
	}, nil
}

// temporary is the file of a block that is being written.
func (f *Fake) temporary(id int64) string {
	return filepath.Join(f.cfg.Tier, "tmp", "1-"+strconv.FormatInt(id, 10))
}

// CreateLocalBlock makes a file for a block, which becomes one when the client ends its side.
func (f *Fake) CreateLocalBlock(s grpc.BidiStreamingServer[wire.CreateLocalBlockRequest,
	wire.CreateLocalBlockResponse],
) error {
	q, err := s.Recv()
	if err != nil {
		return err
	}
	id := q.GetBlockId()
	d := f.dice("CreateLocalBlock", f.pathOf(id))
	if err := f.refuse(s.Context(), d); err != nil {
		return err
	}
	done, err := f.begin(id)
	if err != nil {
		return err
	}
	defer done()
	name := f.temporary(id)
	if err := create(name); err != nil {
		return asStatus(err)
	}
	defer func() { _ = os.Remove(name) }()
	told := name
	if d != nil && d.IntN(4) == 0 {
		told = pick(d, Paths(id)...)
	}
	if err := s.Send(&wire.CreateLocalBlockResponse{Path: &told}); err != nil {
		return err
	}
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			if told != name {
				return status.Error(codes.Internal, "nothing was written")
			}
			return os.Rename(name, f.tiered(id))
		} else if err != nil {
			return err
		}
	}
}

// create makes an empty file.
func create(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	return file.Close()
}

// WriteBlock takes a block.
func (f *Fake) WriteBlock(s grpc.BidiStreamingServer[wire.WriteRequest, wire.WriteResponse]) error {
	q, err := s.Recv()
	if err != nil {
		return err
	}
	id := q.GetCommand().GetId()
	if err := f.refuse(s.Context(), f.dice("WriteBlock", f.pathOf(id))); err != nil {
		return err
	}
	done, err := f.begin(id)
	if err != nil {
		return err
	}
	defer done()
	name := f.temporary(id)
	if err := create(name); err != nil {
		return asStatus(err)
	}
	defer func() { _ = os.Remove(name) }()
	file, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return asStatus(err)
	}
	defer func() { _ = file.Close() }()
	if err := s.Send(&wire.WriteResponse{}); err != nil {
		return err
	}
	for {
		q, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return os.Rename(name, f.tiered(id))
		}
		if err == nil {
			_, err = file.Write(q.GetChunk().GetData())
		}
		if err != nil {
			return err
		}
	}
}

// Cache has the worker read a block of the directory.
func (f *Fake) Cache(ctx context.Context, q *wire.CacheRequest) (*wire.CacheResponse, error) {
	id := q.GetBlockId()
	d := f.dice("Cache", f.pathOf(id))
	if err := f.refuse(ctx, d); err != nil {
		return nil, err
	}
	if d != nil && d.IntN(4) == 0 {
		// All is well, and nothing is done.
		return &wire.CacheResponse{}, nil
	}
	done, err := f.begin(id)
	if err != nil {
		// It is here.
		return &wire.CacheResponse{}, nil
	}
	defer done()
	from, at, err := f.content(id, q.GetOpenUfsBlockOptions())
	if err != nil {
		return nil, asStatus(err)
	}
	defer func() { _ = from.Close() }()
	name := f.temporary(id)
	if err := create(name); err != nil {
		return nil, asStatus(err)
	}
	defer func() { _ = os.Remove(name) }()
	data, err := io.ReadAll(io.NewSectionReader(from, at, q.GetLength()))
	if err == nil {
		err = os.WriteFile(name, data, 0o644)
	}
	if err == nil {
		err = os.Rename(name, f.tiered(id))
	}
	if err != nil {
		return nil, asStatus(err)
	}
	return &wire.CacheResponse{}, nil
}

// RemoveBlock drops a block.
func (f *Fake) RemoveBlock(ctx context.Context, q *wire.RemoveBlockRequest) (*wire.RemoveBlockResponse, error) {
	if err := f.refuse(ctx, f.dice("RemoveBlock", f.pathOf(q.GetBlockId()))); err != nil {
		return nil, err
	}
	err := os.Remove(f.tiered(q.GetBlockId()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, status.Error(codes.NotFound, "the block is not here")
	}
	if err != nil {
		return nil, asStatus(err)
	}
	return &wire.RemoveBlockResponse{}, nil
}
