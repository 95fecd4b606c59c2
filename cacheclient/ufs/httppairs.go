package ufs

import (
	"context"
	"hash/maphash"

	"millrace.io/millrace/cacheclient"
)

// mostPaired is how many files and how many directories of one index are looked at for names that are both, and
// mostTwins how many of those the server is asked about.
const mostPaired, mostTwins = 1 << 15, 64

// pairs finds names that an index lists as a file and as a directory. The server knows which it is.
type pairs struct {
	store *httpStore
	fn    func(cacheclient.Info) error
	seed  maphash.Seed
	// files are the files by their hashes, and dirs the directories, which wait until all files are known.
	files map[uint64]struct{}
	dirs  []cacheclient.Info
	bytes int
}

func (s *httpStore) newPairs(fn func(cacheclient.Info) error) *pairs {
	return &pairs{store: s, fn: fn, seed: maphash.MakeSeed(), files: map[uint64]struct{}{}}
}

// add passes a file on, and has a directory wait.
func (p *pairs) add(info cacheclient.Info) error {
	if info.Dir && len(p.dirs) < mostPaired && p.bytes < mostHeldBytes {
		p.dirs, p.bytes = append(p.dirs, info), p.bytes+len(info.Path)
		return nil
	}
	if !info.Dir && len(p.files) < mostPaired {
		p.files[maphash.String(p.seed, info.Path)] = struct{}{}
	}
	return p.fn(info)
}

// end passes on the directories, but those that the server knows as files.
func (p *pairs) end(ctx context.Context) error {
	asked := 0
	for _, dir := range p.dirs {
		if _, both := p.files[maphash.String(p.seed, dir.Path)]; both && asked < mostTwins {
			asked++
			isDir, err := p.store.slashed(ctx, dir.Path, false)
			if err == nil && !isDir {
				continue
			}
			if ctx.Err() != nil {
				return err
			}
		}
		if err := p.fn(dir); err != nil {
			return err
		}
	}
	return nil
}
