package embedded

import "sync/atomic"

// bound is a limit to what several caches remember. It is never waited for: what is added when there is too much
// of it forgets something of its own, unless it has no more than its share.
type bound struct {
	most          int64
	used, holders atomic.Int64
}

// part is what one cache remembers of it. Its methods are called with the lock of what is remembered.
type part struct {
	of   *bound
	mine int64
}

// add counts n more, or fewer.
func (p *part) add(n int64) {
	before := p.mine
	p.mine += n
	p.of.used.Add(n)
	switch {
	case before == 0 && p.mine != 0:
		p.of.holders.Add(1)
	case before != 0 && p.mine == 0:
		p.of.holders.Add(-1)
	}
}

// tooMuch reports whether this cache must forget something.
func (p *part) tooMuch() bool {
	return p.of.used.Load() > p.of.most && p.mine > p.of.most/max(1, p.of.holders.Load())
}
