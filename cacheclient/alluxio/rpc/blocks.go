package rpc

import (
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/border"
)

// Blocks are those of a file. Which they are follows from its id, its length and the size of a block: what is told of
// others with the file is not believed, or one file could say where another's bytes are.
// D-180 says why.
type Blocks struct {
	// FileID is the file's id, Size the size of a block but for the last one, and Length the file's, in bytes.
	FileID, Size, Length int64
}

// BlocksOf are the blocks of a file of which a master tells. An error says what is told that cannot be.
func BlocksOf(f *wire.FileInfo) (Blocks, error) {
	if err := believe(f); err != nil {
		return Blocks{}, err
	}
	return Blocks{FileID: f.GetFileId(), Size: max(f.GetBlockSizeBytes(), 1), Length: f.GetLength()}, nil
}

// Possible reports whether a file can lie in blocks like this.
func (b Blocks) Possible() bool {
	return b.Size > 0 && b.Size <= border.MostBytes && border.Size(b.Length) == nil && b.Count() <= MostBlocks
}

// Count is how many blocks the file has; an empty one has none.
func (b Blocks) Count() int { return int((b.Length + b.Size - 1) / b.Size) }

// ID is that of the k-th block: a file has the container's id with all bits of the sequence set
// (CC/master/block/BlockId.java).
func (b Blocks) ID(k int) int64 { return b.FileID&^lastSequence | int64(k) }

// Number is which block of the file an id is; false where it is none of its blocks.
func (b Blocks) Number(id int64) (k int, ok bool) {
	k = int(id & lastSequence)
	return k, k < b.Count() && id == b.ID(k)
}

// LengthOf is the length of the k-th block in bytes.
func (b Blocks) LengthOf(k int) int64 { return min(b.Size, b.Length-int64(k)*b.Size) }

// UnderStore tells a worker where the k-th block is in its under store.
func (b Blocks) UnderStore(k int, f *wire.FileInfo) UnderStore {
	return UnderStore{Path: f.GetUfsPath(), Mount: f.GetMountId(), Offset: int64(k) * b.Size, Length: b.LengthOf(k)}
}
