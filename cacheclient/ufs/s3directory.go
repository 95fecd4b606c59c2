package ufs

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// s3Directory makes the entries of a directory of the items that a listing has below its prefix.
type s3Directory struct {
	store       *s3Store
	dir, prefix string
	fn          func(cacheclient.Info) error
	// some says that the listing has anything.
	some bool
	// waiting are objects whose name may still turn out to be a directory's: the keys of a listing are in order, so that
	// "a" comes before "a-b", and that before "a/". Each one's key begins with that of the one before.
	waiting []s3Item
	// last is the directory that was passed on last.
	last string
	// failed is what fn returned.
	failed error
}

// add takes a page.
func (d *s3Directory) add(items []s3Item) error {
	for _, i := range items {
		d.some = true
		rest, below := strings.CutPrefix(i.key, d.prefix)
		if !below || rest == "" {
			// The prefix itself is the directory's own object.
			if below && i.size > 0 {
				d.store.hide(i.key)
			}
			continue
		}
		// A server that ignores the delimiter lists all that is below.
		name, _, common := strings.Cut(rest, slashes)
		if !border.Name(name) {
			d.store.hide(i.key)
			continue
		}
		var err error
		if common {
			err = d.directory(name)
		} else {
			err = d.object(i, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// object has an object wait until nothing can be below its name any more.
func (d *s3Directory) object(i s3Item, name string) error {
	if err := d.release(name); err != nil {
		return err
	}
	i.key = name
	d.waiting = append(d.waiting, i)
	return nil
}

// directory passes a directory on, and drops the object of its name.
func (d *s3Directory) directory(name string) error {
	if d.last == name {
		return nil
	}
	if err := d.release(name + slashes); err != nil {
		return err
	}
	d.last = name
	if n := len(d.waiting); n > 0 && d.waiting[n-1].key == name {
		d.waiting = d.waiting[:n-1]
		d.store.shadow(join(d.dir, name))
	}
	return d.pass(cacheclient.Info{Path: join(d.dir, name), Dir: true})
}

// release passes on the objects whose directories would have come before the name that comes now, as those of which
// that is no continuation. Of a server that does not sort, too, no more wait than a name has bytes.
func (d *s3Directory) release(now string) error {
	n := len(d.waiting)
	for n > 0 && (d.waiting[n-1].key+slashes < now || !strings.HasPrefix(now, d.waiting[n-1].key)) {
		n--
	}
	return d.passFrom(n)
}

// passFrom passes on the objects that wait, from the nth on.
func (d *s3Directory) passFrom(n int) error {
	ready := d.waiting[n:]
	d.waiting = d.waiting[:n]
	for _, i := range ready {
		path := join(d.dir, i.key)
		d.store.plain.add(path)
		if err := d.pass(d.store.info(path, i)); err != nil {
			return err
		}
	}
	return nil
}

// end passes on what still waits.
func (d *s3Directory) end() error { return d.passFrom(0) }

func (d *s3Directory) pass(info cacheclient.Info) error {
	if d.failed == nil {
		d.failed = d.fn(info)
	}
	return d.failed
}

const (
	// recentMost and recentAge bound what recent remembers: about 64 Ki paths, for ten minutes at the most.
	recentMost = 32 << 10
	recentAge  = 5 * time.Minute
)

// recent remembers paths for a while, by a hash of each.
type recent struct {
	// mu guards the rest.
	mu         sync.Mutex
	seed       maphash.Seed
	young, old map[uint64]struct{}
	turned     time.Time
}

// add remembers a path, and forgets what is older by one generation than the oldest that is kept.
func (r *recent) add(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	r.young[maphash.String(r.seed, path)] = struct{}{}
}

// has reports whether a path is remembered.
func (r *recent) has(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	h := maphash.String(r.seed, path)
	_, young := r.young[h]
	_, old := r.old[h]
	return young || old
}

// turn begins a new generation when the present one is full or old; mu is held.
func (r *recent) turn() {
	now := time.Now()
	if r.young != nil && len(r.young) < recentMost && now.Sub(r.turned) < recentAge {
		return
	}
	if r.young == nil {
		r.seed = maphash.MakeSeed()
	}
	r.old = r.young
	if now.Sub(r.turned) >= 2*recentAge {
		r.old = nil
	}
	r.young, r.turned = make(map[uint64]struct{}), now
}
