package gateway

import "sync"

// mostNoted bounds what is remembered to have been logged.
const mostNoted = 4096

// noted are the paths of which something was logged, so that it is said once and not with each request.
type noted struct {
	// mu guards said.
	mu   sync.Mutex
	said map[string]bool
}

// first reports whether nothing was said of the path yet, and notes that it is.
func (n *noted) first(path string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.said[path] {
		return false
	}
	if n.said == nil || len(n.said) >= mostNoted {
		n.said = make(map[string]bool)
	}
	n.said[path] = true
	return true
}

// forget has it be said again: the path was well meanwhile.
func (n *noted) forget(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.said, path)
}
