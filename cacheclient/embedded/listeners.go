package embedded

import (
	"context"
	"sync"

	"millrace.io/millrace/cacheclient"
)

// listeners wait for the answer to a question that is being asked. They hear of each part of it that comes, so that it
// may take as long as it comes.
type listeners struct {
	// mu guards of.
	mu sync.Mutex
	of map[string]map[*context.Context]struct{}
}

// add has ctx hear of the question until the function that it returns is called.
func (l *listeners) add(ctx context.Context, key string) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]map[*context.Context]struct{}{}
	}
	if l.of[key] == nil {
		l.of[key] = map[*context.Context]struct{}{}
	}
	l.of[key][&ctx] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.of[key], &ctx)
		if len(l.of[key]) == 0 {
			delete(l.of, key)
		}
	}
}

// heard tells the question's listeners that something of the answer came.
func (l *listeners) heard(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ctx := range l.of[key] {
		cacheclient.Heard(*ctx)
	}
}
