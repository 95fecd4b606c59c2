package embedded

import (
	"context"
	"sync"

	"millrace.io/millrace/cacheclient"
)

// listeners wait for a directory that is being listed. They hear of each entry, so that a listing may take as
// long as it comes.
type listeners struct {
	mu sync.Mutex
	// of is guarded by mu.
	of map[string]map[*context.Context]struct{}
}

// add has ctx hear of the directory until the function that it returns is called.
func (l *listeners) add(ctx context.Context, dir string) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]map[*context.Context]struct{}{}
	}
	if l.of[dir] == nil {
		l.of[dir] = map[*context.Context]struct{}{}
	}
	l.of[dir][&ctx] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.of[dir], &ctx)
		if len(l.of[dir]) == 0 {
			delete(l.of, dir)
		}
	}
}

// heard tells the directory's listeners that something of it came.
func (l *listeners) heard(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ctx := range l.of[dir] {
		cacheclient.Heard(*ctx)
	}
}
