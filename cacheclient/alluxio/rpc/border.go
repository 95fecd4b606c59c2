package rpc

import (
	"errors"
	"fmt"
	"sync"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/border"
)

// What masters and workers say passes this file before it is used: every number is a claim, and nothing is made as
// large as one claims. D-180 says why.
const (
	// MostBlocks is how many blocks a file has at most: their numbers have 24 bits, and one more would be of another
	// file.
	MostBlocks = 1 << sequenceBits
	// leastBlockSize is the smallest block of a file of several, in bytes: a read of such a file asks for each block.
	leastBlockSize = 512
	// mostListed is how many entries of one directory are taken.
	mostListed = 16 << 20
	// MostLocations is how many of the workers that have a block are taken.
	MostLocations = 32
	// mostMounts is how many mounts of a table are taken, and mostWorkers how many workers are known at once.
	mostMounts  = 4096
	mostWorkers = 4096
	// mostHostBytes is the longest name of a host (RFC 1035), and mostPathBytes the longest path of a file on this
	// machine.
	mostHostBytes = 255
	mostPathBytes = 4096

	// sequenceBits are those of a block's id that tell the blocks of one file apart; a file's own id has all of them
	// set.
	sequenceBits = 24
	lastSequence = 1<<sequenceBits - 1
)

// errClaim says that a server tells what cannot be. It concerns what it tells of alone, and another attempt would not
// help.
var errClaim = errors.New("the server tells what cannot be")

// believe checks what a master tells of a file, and bounds what may be as large as it likes. An error is of that file
// alone.
func believe(f *wire.FileInfo) error {
	if f.GetFolder() {
		return nil
	}
	length, block, id := f.GetLength(), f.GetBlockSizeBytes(), f.GetFileId()
	switch {
	case f.Length == nil:
		return fmt.Errorf("%w: a file without a length", errClaim)
	case length < 0:
		return fmt.Errorf("%w: a length of %d bytes", errClaim, length)
	}
	if err := border.Size(length); err != nil {
		return err
	}
	switch {
	case id < 0 || id&lastSequence != lastSequence:
		return fmt.Errorf("%w: the file id %d, which is none", errClaim, id)
	case length > 0 && block < 1, length > block && block < leastBlockSize:
		return fmt.Errorf("%w: blocks of %d bytes; accepted are %d and more", errClaim, block, leastBlockSize)
	case length > block && (length-1)/max(block, 1) >= MostBlocks:
		return fmt.Errorf("%w: %d bytes in blocks of %d; accepted are %d blocks", errClaim, length, block, MostBlocks)
	}
	// One block of this size holds every file.
	block = min(max(block, 1), border.MostBytes)
	f.BlockSizeBytes = &block
	return nil
}

// entry judges an entry of a listing: false where no directory can have it. What is told of a file and cannot be is
// taken out, so that the name shows and the numbers are not known.
func entry(f *wire.FileInfo) bool {
	if f == nil || !border.Name(f.GetName()) {
		return false
	}
	if !f.GetFolder() && believe(f) != nil {
		f.Length, f.BlockSizeBytes, f.BlockIds, f.FileBlockInfos = nil, nil, nil, nil
	}
	return true
}

// bytesOf is a number of bytes that a server tells of itself, within what can be added up.
func bytesOf(claimed int64) int64 { return min(max(claimed, 0), border.MostBytes) }

// few is the first places of a block, of which a master may name as many as it likes.
func few(at []*wire.BlockLocation) []*wire.BlockLocation { return at[:min(len(at), MostLocations)] }

// bounded has a worker's numbers be such as can be added up.
func bounded(infos []*wire.WorkerInfo) []*wire.WorkerInfo {
	infos = infos[:min(len(infos), mostWorkers)]
	for _, info := range infos {
		capacity, used := bytesOf(info.GetCapacityBytes()), bytesOf(info.GetUsedBytes())
		info.CapacityBytes, info.UsedBytes = &capacity, &used
	}
	return infos
}

// blockPlaces checks what a master tells of the block id.
func blockPlaces(id int64, info *wire.BlockInfo) (*wire.BlockInfo, error) {
	if info != nil && info.BlockId != nil && info.GetBlockId() != id {
		return nil, fmt.Errorf("%w: block %d, and block %d was asked for", errClaim, info.GetBlockId(), id)
	}
	if info != nil {
		info.Locations = few(info.GetLocations())
	}
	return info, nil
}

// checkPath checks the path of a file that a worker names.
func checkPath(path string) error {
	if len(path) > mostPathBytes {
		return fmt.Errorf("%w: a path of %d bytes; accepted are %d", errClaim, len(path), mostPathBytes)
	}
	return nil
}

// mostNoted bounds what is remembered to have been logged.
const mostNoted = 1024

// noted remembers what was logged, so that it is said once.
type noted struct {
	// mu guards said.
	mu sync.Mutex
	// said are the directories.
	said map[string]bool
}

// first reports whether this was not noted yet, and notes it.
func (n *noted) first(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.said[what] {
		return false
	}
	if n.said == nil || len(n.said) >= mostNoted {
		n.said = make(map[string]bool)
	}
	n.said[what] = true
	return true
}

// tellLeftOut logs that a directory has names that no file system can show.
func (m *Masters) tellLeftOut(dir string, names int) {
	if m.odd.first(dir) {
		m.log.Warn("names that no directory can have are left out of a listing", "path", dir, "names", names)
	}
}
