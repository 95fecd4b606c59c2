package embedded

// What a fetch writes to a tier itself it may lend before the block is whole. What the tier had before it came by is
// another matter: it may be in doubt, and go. D-132 says why.

// writes decides at the begin of a block whether the fetch writes it, and reports that. A block that is there and right
// stays as it is; one that is in doubt is written anew, and without a word for it meanwhile.
func (f *fetch) writes(b int64) bool {
	e := f.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if f.at != b*BlockSize {
		return f.own.has(b)
	}
	if e.have.has(b) {
		if _, doubtful := e.unverified[b]; !doubtful {
			return false
		}
		delete(e.unverified, b)
		e.have.clear(b)
		_ = e.state.clear(b)
	}
	f.own.set(b)
	return true
}

// spoil ends a fetch whose bytes in the data file may be lost; readers that wait for them ask again. entry.mu is held.
func (f *fetch) spoil() {
	if f.inTier {
		f.own, f.spoiled = bitmap{}, true
		f.cancel()
	}
}

// brings reports whether the block comes with the fetch, or has come; entry.mu is held. A block in the tier that was
// there when the fetch passed does not.
func (f *fetch) brings(b int64) bool {
	return f.run.has(b) && (!f.inTier || f.own.has(b) || f.at <= b*BlockSize && !f.spoiled)
}

// unspent is what was reserved for blocks of the run that did not come.
func (f *fetch) unspent() int64 {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	var n int64
	for b := f.run.first; b < f.run.last; b++ {
		if !f.e.have.has(b) && (f.spoiled || f.brings(b)) {
			n += run{b, b + 1}.charge(f.e.info.Size)
		}
	}
	return n
}
