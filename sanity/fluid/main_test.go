package fluid

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"

	"millrace.io/millrace/sanity/machines"
)

// scenes are all documents, those that take longest first.
func scenes() []scene {
	var all []scene
	for _, group := range [][]scene{ownTests, operated, read, sources, placed, toldOnly} {
		all = append(all, group...)
	}
	return all
}

// TestFluid follows all documents, some scenes at a time.
func TestFluid(t *testing.T) {
	s := get(t)
	queue := make(chan scene)
	var lanes sync.WaitGroup
	for i := range laneCount() {
		lanes.Go(func() {
			for sc := range queue {
				t.Run(sc.name, func(t *testing.T) { s.play(t, sc, i) })
			}
		})
	}
	for _, sc := range scenes() {
		queue <- sc
	}
	close(queue)
	lanes.Wait()
	t.Run("NothingIsLeft", s.nothingIsLeft)
	if name := os.Getenv("MILLRACE_FLUID_PAGE"); name != "" {
		if err := os.WriteFile(name, []byte(page(s.verdict)), 0o644); err != nil {
			t.Error(err)
		}
	}
}

func TestMain(m *testing.M) {
	machines.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	shared.ctx = ctx //nolint:fatcontext // It is the whole run's.
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "the cluster:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}
