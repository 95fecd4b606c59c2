package heartbeat

import (
	"fmt"
	"sync"
)

// Part is what a step is at, said by the step and read by the line that tells of it. The zero value says nothing.
type Part struct {
	// mu guards text.
	mu   sync.Mutex
	text string
}

// Say takes the place of what was said before.
func (p *Part) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = fmt.Sprintf(format, args...)
}

// After is a text with what was said last behind it.
func (p *Part) After(text string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.text == "" {
		return text
	}
	return text + ": " + p.text
}
