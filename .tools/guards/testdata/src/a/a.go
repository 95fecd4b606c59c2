// Package a has locks whose comments hold, and some whose do not.
package a

import "sync"

type counter struct {
	name string

	// mu guards the rest. It is taken last.
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

// addHeld adds; mu is held.
func (c *counter) addHeld() { c.n++ }

// addLocked adds, with mu held.
func (c *counter) addLocked() { c.n++ }

// first needs no mu: no other goroutine has the counter yet.
func (c *counter) first() { c.n = 1 }

func (c *counter) title() string { return c.name }

func (c *counter) race() int { return c.n } // want `c.n is used without mu, which guards it`

func (c *counter) late() int {
	n := c.n // want `c.n is used without mu, which guards it`
	c.mu.Lock()
	defer c.mu.Unlock()
	return n
}

func (c *counter) other(o *counter) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return o.n // want `o.n is used without mu, which guards it`
}

func made() *counter {
	c := &counter{}
	c.n = 3
	return c
}

func got(all []*counter) int {
	c := all[0]
	return c.n // want `c.n is used without mu, which guards it`
}

type two struct {
	// mu guards a and b.
	mu   sync.RWMutex
	a, b int
	c    int
	// opening serializes openings.
	opening sync.Mutex
}

func (t *two) sum() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.a + t.b + t.c
}

func (t *two) rest() int { return t.b + t.c } // want `t.b is used without mu, which guards it`

type silent struct {
	mu sync.Mutex // want `the comment of mu does not begin with`
	n  int
}

type wrong struct {
	// mu guards gone.
	mu sync.Mutex // want `mu guards gone, which is no field`
	n  int
}
