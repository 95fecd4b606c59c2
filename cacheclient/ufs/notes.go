package ufs

import (
	"log/slog"
	"slices"
	"sync"
)

// Noted is a store that noticed something of its source which people should know. What [Open] returns is one.
type Noted interface {
	// Notes are sentences, in the order in which they were found.
	Notes() []string
}

// notes are what was noticed of a source: each is told once in the log, and kept.
type notes struct {
	log    *slog.Logger
	source string

	// mu guards the rest.
	mu              sync.Mutex
	keys, sentences []string
}

// tell tells a sentence, unless one of its key was told before.
func (n *notes) tell(key, sentence string) {
	if n.keep(key, sentence) {
		n.log.Warn("the source is not as it should be", "source", n.source, "what", sentence)
	}
}

// keep reports whether nothing of the key was known.
func (n *notes) keep(key, sentence string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Contains(n.keys, key) {
		return false
	}
	n.keys, n.sentences = append(n.keys, key), append(n.sentences, sentence)
	return true
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sentences)
}
