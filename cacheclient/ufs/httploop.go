package ufs

import (
	"hash/maphash"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"millrace.io/millrace/cacheclient"
)

const (
	// sameAbove is how many directories above one must look alike before it is compared with them: a tree that holds
	// itself looks so, and no other does. Directories of directories alone, as those of a tree of map tiles, look alike
	// for longer. D-196 says why.
	sameAbove, sameDirsAbove = 8, 512
	// mostShapes is how many directories are remembered by their looks. mostHeld is how many entries of one are kept
	// until it is compared, and mostHeldBytes how long their paths are together.
	mostShapes, mostHeld, mostHeldBytes = 8 << 10, 1 << 16, 16 << 20
)

// shape is what a directory looks like: its names and kinds, in any order, by their hashes.
type shape struct {
	seed maphash.Seed
	sum  uint64
	// n counts what is in it, and files those of it that are files.
	n, files int
}

// shapeSeed is one for all, since shapes are compared.
var shapeSeed = maphash.MakeSeed()

func newShape() *shape { return &shape{seed: shapeSeed} }

func (s *shape) reset() { s.sum, s.n, s.files = 0, 0, 0 }

func (s *shape) add(info cacheclient.Info) {
	name := info.Name()
	if info.Dir {
		name += "/"
	} else {
		s.files++
	}
	s.sum += maphash.String(s.seed, name)
	s.n++
}

// shapes remembers what directories that were listed lately look like.
type shapes struct{ known *lru.Cache[uint64, shape] }

func newShapes() *shapes {
	// It fails for a size below 1 only.
	cache, _ := lru.New[uint64, shape](mostShapes)
	return &shapes{known: cache}
}

func (s *shapes) put(dir string, sh *shape) { s.known.Add(maphash.String(shapeSeed, dir), *sh) }

// repeats reports whether the directories above dir, of which there are enough, all look alike.
func (s *shapes) repeats(dir string) bool {
	var first shape
	for i, enough := 0, sameAbove; i < enough; i++ {
		if dir == "" {
			return false
		}
		dir = above(dir)
		sh, ok := s.known.Get(maphash.String(shapeSeed, dir))
		if !ok || sh.n == 0 || i > 0 && sh != first {
			return false
		}
		if first = sh; sh.files == 0 {
			enough = sameDirsAbove
		}
	}
	return true
}

// same reports whether the directory looks as the one that it is in.
func (s *shapes) same(dir string, sh *shape) bool {
	parent, ok := s.known.Get(maphash.String(shapeSeed, above(dir)))
	return ok && parent == *sh
}

// above is the directory that a path is in.
func above(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }
