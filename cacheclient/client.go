// Package cacheclient is the seam between a file system and the cache that
// feeds it: one read-only [Client] interface, several backends.
//
// A file in this package is one version of one file of the source. Its identity,
// [Info.ID], covers the version: a file that changes at the source becomes another
// file with another ID, and whoever holds the old one never sees bytes of the new.
// Identities are derived, not counted, so a new process gives the same file the
// same ID and the kernel may keep what it knows across a restart.
//
// The life of a read:
//
//  1. Stat or List give an Info; its ID names the version.
//  2. Open asks for that version. It may ask the source whether the version still
//     stands, and answers ErrStale when it does not: the caller looks the path up again.
//  3. File.Local gives the one local file that holds all of it, when there is one:
//     the kernel can read that without us.
//  4. File.Read lends the bytes otherwise, waiting for those that are on their way.
//
// Backends: embedded (a tier in local directories over any under store) and alluxio (the masters and workers of a
// cluster). They all pass the conformance suite in cachetest.
package cacheclient

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"time"
)

// Errors that every backend returns, wrapped with what was tried. A path that does
// not exist is fs.ErrNotExist, a refusal by the source fs.ErrPermission.
var (
	// ErrStale says that the source now holds another version than the one asked for.
	ErrStale = errors.New("the file changed at the source")
	// ErrUnavailable says that the source did not answer within the deadline.
	ErrUnavailable = errors.New("the source does not answer")
	// ErrNotDir says that a directory was asked for and the path is a file.
	ErrNotDir = errors.New("not a directory")
	// ErrIsDir says that a file was asked for and the path is a directory.
	ErrIsDir = errors.New("is a directory")
	// ErrClosed says that the client or the file has been closed.
	ErrClosed = errors.New("closed")
	// ErrTooLarge says that the source claims a size which no file has (see border.MostBytes).
	ErrTooLarge = errors.New("larger than any file can be")
)

// RootID is the identity of the root directory in every backend; FUSE asks for 1.
const RootID = 1

// UnknownSize is the Info.Size of a file whose attributes have not been asked for.
const UnknownSize = -1

// Info describes one version of a file, or a directory.
type Info struct {
	// Path is slash-separated and relative to the root, which is "".
	Path string
	// ID is the identity of this version; 0 where the attributes are not known yet.
	ID uint64
	// Dir tells directories from files; there is nothing else.
	Dir bool
	// Size is in bytes, UnknownSize where the attributes are not known yet.
	Size int64
	// ModTime is the source's modification time; zero where the source does not tell.
	ModTime time.Time
	// Mode has permission bits; meaningless where ModeKnown is false: the source does not tell.
	Mode      os.FileMode
	ModeKnown bool
	// Version is the source's own mark of this version (an ETag), "" where it has none:
	// then Size and ModTime tell versions apart.
	Version string
}

// Name is the last element of the path; "" for the root.
func (i Info) Name() string {
	if i.Path == "" {
		return ""
	}
	return path.Base(i.Path)
}

// Identify fills in the ID: RootID for the root, a hash of the path for a directory, of
// the path and the version for a file. It is the first 8 bytes of a SHA-256, so that
// nobody who names files at the source can make two of them meet.
func Identify(i Info) Info {
	if i.Path == "" {
		i.ID = RootID
		return i
	}
	h := sha256.New()
	if i.Dir {
		_, _ = io.WriteString(h, "dir\x00"+i.Path)
	} else {
		_, _ = io.WriteString(h, "file\x00"+i.Path+"\x00"+i.Mark())
	}
	var sum [sha256.Size]byte
	i.ID = binary.LittleEndian.Uint64(h.Sum(sum[:0]))
	if i.ID <= RootID {
		i.ID += 2
	}
	return i
}

// Mark is what tells this version of the path from others: the source's version where
// there is one, else the time; always with the size.
func (i Info) Mark() string {
	if i.Version != "" {
		return strconv.FormatInt(i.Size, 10) + "\x00v" + i.Version
	}
	return strconv.FormatInt(i.Size, 10) + "\x00t" + moment(i.ModTime)
}

// nanoseconds of these years fit an int64 (time.Time.UnixNano).
const firstYear, lastYear = 1678, 2261

// moment writes a time of any year so that no two times meet.
func moment(t time.Time) string {
	if y := t.UTC().Year(); y >= firstYear && y <= lastYear || t.IsZero() {
		return strconv.FormatInt(t.UnixNano(), 10)
	}
	return strconv.FormatInt(t.Unix(), 10) + "." + strconv.Itoa(t.Nanosecond())
}

// Cursor is a place in a directory; the zero value is before the first entry. It is of a version of the directory,
// because a number means something else in another one.
type Cursor struct {
	// Version is the one in which Index counts, 0 for that of now.
	Version uint64
	// Index is how many entries stand before the place.
	Index uint64
	// After is the name of the entry before the place. Where the version is gone, the reading goes on behind this name,
	// so that it neither skips nor repeats what was there throughout.
	After string
}

// Page is a part of a directory, in the order of the names, each of which is there once.
type Page struct {
	// Entries follow one another.
	Entries []Info
	// First is how many entries stand before them, and Count how many the directory has in this version.
	First, Count uint64
	// Next is the place behind the last one.
	Next Cursor
	// End says that no entry follows the last one.
	End bool
	// Version changes when the directory's entries change; never 0.
	Version uint64
}

// Client is a read-only view of one source through one cache. All methods may be
// called from many goroutines. A method that waits ends with its context.
type Client interface {
	// Stat describes the path.
	Stat(ctx context.Context, path string) (Info, error)
	// List returns at most limit entries of the directory behind a place, as told by Page.Next or the zero Cursor. It
	// returns ErrStale where the place cannot be found any more. With attrs each entry is complete, an entry that
	// vanished meanwhile keeping ID 0; without, files may come as a name and a kind. A directory of any length costs
	// the caller one page of memory.
	List(ctx context.Context, dir string, from Cursor, limit int, attrs bool) (Page, error)
	// Open opens the version that info names, as returned by Stat or List. It returns
	// ErrStale when the source is known to hold another.
	Open(ctx context.Context, info Info) (File, error)
	// Resume opens a version that this client's predecessor, another process, had open. The source is not asked:
	// it may hold another version by now, and whoever has the old one open goes on with what is cached of it.
	Resume(ctx context.Context, info Info) (File, error)
	// Blocks tells where each block of the path's present version is.
	Blocks(ctx context.Context, path string) ([]Block, error)
	// Warm fetches what is missing of the file at path, calling progress (which may be nil)
	// as bytes come.
	Warm(ctx context.Context, path string, progress func(cached int64)) error
	// Free drops what is cached of the path, a file or a tree, except what is open, and
	// returns the bytes that it freed.
	Free(ctx context.Context, path string) (int64, error)
	// Capacity tells the cache's size and use. It answers from memory.
	Capacity() Capacity
	// Counters tells what was done since the client began. It answers from memory.
	Counters() Counters
	// Close ends all background work. Files that are open return ErrClosed.
	Close() error
}

// File is an open version of a file.
type File interface {
	// Info describes this version.
	Info() Info
	// Read lends n bytes from the offset off, fewer only at the end of the file. The caller
	// releases them. It returns ErrStale when bytes are missing that the source no longer has.
	Read(ctx context.Context, off int64, n int) (Data, error)
	// Local is the local file that holds the whole of this version at the same offsets, when
	// there is one. It stays valid and complete until Close; the caller must not close it.
	Local() (*os.File, bool)
	// Close gives the file back to eviction.
	Close() error
}

// Data is bytes lent by a File: they are read-only, and valid until Release.
type Data struct {
	// Parts are the bytes in order.
	Parts [][]byte
	// Free is called by Release; nil where nothing is held.
	Free func()
	// Origin is which source served the bytes; "" where the backend does not tell.
	Origin Origin
	// Reader is which of the backend's readers served them, for people; "" where it has one alone.
	Reader string
}

// Origin is a source that bytes were served by.
type Origin string

// The origins.
const (
	// OriginCache is a tier of this machine, OriginStaging the memory for bytes that no tier took.
	OriginCache   Origin = "cache"
	OriginStaging Origin = "staging"
	// OriginWorker is a worker of a cluster, over the network.
	OriginWorker Origin = "worker"
	// OriginSource is the source: the reader waited for some of the bytes to come from there.
	OriginSource Origin = "source"
)

// Len is the number of bytes.
func (d Data) Len() int {
	n := 0
	for _, p := range d.Parts {
		n += len(p)
	}
	return n
}

// Release ends the loan.
func (d Data) Release() {
	if d.Free != nil {
		d.Free()
	}
}

// ReadAt reads len(p) bytes of f from off into p, and like io.ReaderAt returns io.EOF
// where the file ends first.
func ReadAt(ctx context.Context, f File, p []byte, off int64) (int, error) {
	if off >= f.Info().Size {
		return 0, io.EOF
	}
	d, err := f.Read(ctx, off, len(p))
	if err != nil {
		return 0, err
	}
	defer d.Release()
	n := 0
	for _, part := range d.Parts {
		n += copy(p[n:], part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Block is a part of a file and where it is cached.
type Block struct {
	// Offset and Length are in bytes.
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	// Where names each place that holds the block, best first: a tier's directory, a worker's
	// address. Empty means that only the source has it.
	Where []string `json:"where"`
}

// Capacity is the cache's size and use, in bytes.
type Capacity struct {
	Quota int64 `json:"quota"`
	Used  int64 `json:"used"`
	// Levels are the tiers, fastest first; of a cluster each worker is one.
	Levels []Level `json:"levels"`
	// Leader is the leading master of a cluster as it was known last, host:port; "" where there is no cluster.
	Leader string `json:"leader,omitempty"`
}

// Level is one tier of a cache.
type Level struct {
	Where string `json:"where"`
	Quota int64  `json:"quota"`
	Used  int64  `json:"used"`
	// Local says of a worker that it is on this machine.
	Local bool `json:"local,omitempty"`
	// Problem says why the level takes no data at present, "" when it does.
	Problem string `json:"problem,omitempty"`
}

// Counters are sums since the client began.
type Counters struct {
	// FilesKnown and BytesKnown count the files whose attributes are in memory.
	FilesKnown int64 `json:"filesKnown"`
	BytesKnown int64 `json:"bytesKnown"`
	// Reads by whether all of their bytes were cached when they came.
	Hits   int64 `json:"hits"`
	Misses int64 `json:"misses"`
	// BytesCache were lent from the cache, BytesSource were received from the source.
	BytesCache  int64 `json:"bytesCache"`
	BytesSource int64 `json:"bytesSource"`
	// SourceRequests counts requests to the source, SourceErrors those that failed.
	SourceRequests int64 `json:"sourceRequests"`
	SourceErrors   int64 `json:"sourceErrors"`
	// Evicted counts files and bytes that made room for others.
	EvictedFiles int64 `json:"evictedFiles"`
	EvictedBytes int64 `json:"evictedBytes"`
	// Changed counts files found to have changed at the source.
	Changed int64 `json:"changed"`
	// Discarded counts cached files thrown away because their state or content was damaged.
	Discarded int64 `json:"discarded"`
	// SourceDown says that the source did not answer the last time that it was asked, since SourceDownSince.
	SourceDown      bool      `json:"sourceDown"`
	SourceDownSince time.Time `json:"sourceDownSince,omitzero"`
	// SourceRefuses says that the source does not know the credentials, and has served nothing since it did.
	SourceRefuses bool `json:"sourceRefuses,omitempty"`
	// LastSourceError is what the source, or the way to it, last failed with, in one sentence without secrets; it
	// stays when the source answers again. What concerns one path only is not told.
	LastSourceError string `json:"lastSourceError,omitempty"`
	// SourceNotes are sentences about what the source does otherwise than it should, and what follows from that.
	SourceNotes []string `json:"sourceNotes,omitempty"`
}
