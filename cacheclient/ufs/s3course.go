package ufs

import (
	"fmt"

	"millrace.io/millrace/cacheclient/border"
)

// mostBarren is how many pages of a listing in a row may bring nothing that the page before did not.
const mostBarren = 1000

// course is how the pages of one listing follow one another. One that goes in a circle, or on without an end, is an
// error, for each page is a sign of life. D-226 says how.
type course struct {
	// next and keys are where the pages go on, and the first object of each.
	next, keys circle
	// barren counts the pages in a row that brought nothing new, and last is the last item of the one before.
	barren int
	last   string
	// entries and bytes count all that is listed.
	entries, bytes int64
}

// add judges a page.
func (c *course) add(page s3Page) error {
	if page.next != "" && c.next.closes(page.next) {
		return fmt.Errorf("the server's listing goes in a circle: it goes on after %.200q once more", page.next)
	}
	for _, i := range page.items {
		c.entries++
		c.bytes += int64(len(i.key))
	}
	if err := border.Listing(c.entries, c.bytes); err != nil {
		return err
	}
	for _, i := range page.items {
		if i.common {
			// A server may tell a prefix on each page that has keys below it.
			continue
		}
		if c.keys.closes(i.key) {
			return fmt.Errorf("the server's listing goes in a circle: %.200q comes once more", i.key)
		}
		break
	}
	n := len(page.items)
	if n > 0 && page.items[n-1].key != c.last {
		c.barren, c.last = 0, page.items[n-1].key
		return nil
	}
	if c.barren++; c.barren > mostBarren {
		return fmt.Errorf("the server's listing goes on for %d pages without anything new", mostBarren)
	}
	return nil
}

// circle notices that a sequence goes in a circle, and remembers one value of it: the latest whose number was a power
// of two (Brent's algorithm).
type circle struct {
	anchor   string
	at, turn int
}

// closes reports whether the sequence has come back to the value that is remembered.
func (c *circle) closes(value string) bool {
	if c.at > 0 && value == c.anchor {
		return true
	}
	if c.at++; c.at >= c.turn {
		c.anchor, c.turn = value, 2*c.at
	}
	return false
}
