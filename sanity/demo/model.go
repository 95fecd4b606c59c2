package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/session"
)

// modelName is the model's file. Its format is that of safetensors: the length of a header in JSON as eight bytes,
// the header, and the tensors' bytes.
const modelName = "model.safetensors"

// tensors are how many the model has, all of one size.
const tensors = 32

// tensor is one entry of the header.
type tensor struct {
	Type    string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"` // of its first byte and behind its last, from the end of the header
}

// writeModel writes a model of about so many bytes, which nothing can compress or guess.
func writeModel(name string, size int64) error {
	header := map[string]tensor{}
	each := size / tensors
	for n := range int64(tensors) {
		header[fmt.Sprintf("layer.%02d.weight", n)] = tensor{
			Type: "U8", Shape: []int64{each},
			Offsets: [2]int64{n * each, (n + 1) * each},
		}
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...))
	if err == nil {
		_, err = io.CopyBuffer(f, io.LimitReader(rand.Reader, tensors*each), make([]byte, 1<<20))
	}
	return errors.Join(err, f.Close())
}

// mapped is what it took to bring a model in by mmap.
type mapped struct {
	Took  time.Duration
	Bytes int64
	Sum   [sha256.Size]byte // of the whole file

	cost serve.Stats // what it cost the source
}

// rate is how fast the pages came, for people.
func (m mapped) rate() string {
	return fmt.Sprintf("%.2f s, %s/s", m.Took.Seconds(), size(int64(float64(m.Bytes)/m.Took.Seconds())))
}

// mapInChild has a process of its own map the model: a page fault stops this one's scheduler, and with it the web
// server that the page comes from.
func mapInChild(s *session.Session, name string) (m mapped, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	out, err := s.Run(mapLimit, self, "-map", name)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal([]byte(out.Stdout), &m)
}

// mapLimit bounds the mapping of a model.
const mapLimit = 10 * time.Minute

// mapModel maps a model and touches each page of each tensor, as a loader does: the time is that of the touching. Then
// it takes the sum of all that is mapped.
func mapModel(ctx context.Context, name string) (m mapped, err error) {
	f, err := os.Open(name)
	if err != nil {
		return m, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return m, err
	}
	m.Bytes = info.Size()
	began := time.Now()
	data, err := unix.Mmap(int(f.Fd()), 0, int(m.Bytes), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return m, fmt.Errorf("mmap %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(data)) }()
	// A page that cannot be read is a signal, which becomes a panic.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("a page of %s cannot be read: %v", name, fault)
		}
	}()
	if err := touch(ctx, data); err != nil {
		return m, fmt.Errorf("%s: %w", name, err)
	}
	m.Took = time.Since(began)
	m.Sum = sha256.Sum256(data)
	return m, nil
}

// touch reads the header of a mapped model, then a byte of each page of each tensor.
func touch(ctx context.Context, data []byte) error {
	if len(data) < 8 {
		return errors.New("no header of a model")
	}
	length := binary.LittleEndian.Uint64(data)
	if length > uint64(len(data)-8) {
		return fmt.Errorf("a header of %d bytes in a file of %d", length, len(data))
	}
	var header map[string]tensor
	if err := json.Unmarshal(data[8:8+length], &header); err != nil {
		return fmt.Errorf("the header of a model: %w", err)
	}
	content := data[8+length:]
	var sum byte
	// Loaders take the tensors in the order of the file.
	for _, t := range slices.SortedFunc(maps.Values(header),
		func(a, b tensor) int { return cmp.Compare(a.Offsets[0], b.Offsets[0]) }) {
		if t.Offsets[0] < 0 || t.Offsets[1] < t.Offsets[0] || t.Offsets[1] > int64(len(content)) {
			return fmt.Errorf("a tensor from %d to %d in %d bytes", t.Offsets[0], t.Offsets[1], len(content))
		}
		for at := t.Offsets[0]; at < t.Offsets[1]; at += int64(os.Getpagesize()) {
			sum ^= content[at]
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	runtime.KeepAlive(sum)
	return nil
}
