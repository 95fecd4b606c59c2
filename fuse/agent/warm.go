package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/cacheclient"
)

const (
	// warmTick is the time between two lines of progress.
	warmTick = 200 * time.Millisecond
	// warmWindow is how many ticks the rate looks back.
	warmWindow = 15
	// warmPage is how many entries of a directory are in memory at once, for each
	// directory on the way down.
	warmPage = 256
	// warmAhead is how many files the walk may be ahead of the fetching. It is what makes the
	// totals right long before the end, at about 150 bytes a file.
	warmAhead = 16384
	// warmNamed is how many of the directories that cannot be listed are named.
	warmNamed = 10
	// warmWrite is how long a client may leave its lines unread before it counts as gone.
	warmWrite = 30 * time.Second
)

func (s *Server) warmHandler(w http.ResponseWriter, r *http.Request) error {
	var req WarmRequest
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	if req.Jobs < 0 || req.Jobs > MaxWarmJobs {
		return errStatus(http.StatusBadRequest, "jobs is %d: it is 1 to %d, or 0 for %d", req.Jobs, MaxWarmJobs,
			DefaultWarmJobs)
	}
	if req.Jobs == 0 {
		req.Jobs = DefaultWarmJobs
	}
	m, rel, err := s.find(req.Path)
	if err != nil {
		return err
	}
	info, err := m.Client.Stat(r.Context(), rel)
	if err != nil {
		return fmt.Errorf("warm %s: %w", req.Path, err)
	}
	s.log.Info("warming", "mount", m.Dir, "path", rel, "jobs", req.Jobs)
	final := streamWarm(r.Context(), w, newWarmer(m.Client, req.Jobs), info)
	s.log.Info("warmed", "mount", m.Dir, "path", rel, "files", final.FilesDone, "bytes", final.BytesDone,
		"failed", final.FilesFailed, "directories failed", final.DirsFailed, "error", final.Error)
	return nil
}

// streamWarm runs the warmer and writes its progress line by line. A client that no longer
// reads stops it. It returns when all fetching has stopped.
func streamWarm(ctx context.Context, w http.ResponseWriter, wr *warmer, root cacheclient.Info) WarmProgress {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, control := json.NewEncoder(w), http.NewResponseController(w)
	write := func(p WarmProgress) {
		_ = control.SetWriteDeadline(time.Now().Add(warmWrite))
		if err := errors.Join(out.Encode(p), control.Flush()); err != nil {
			cancel()
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- wr.run(ctx, root) }()
	tick := time.NewTicker(warmTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			write(wr.progress())
		case err := <-ended:
			final := wr.final(err)
			write(final)
			_ = control.SetWriteDeadline(time.Time{})
			return final
		}
	}
}

// warmer fetches the files of a tree. One goroutine walks, jobs goroutines fetch; they end
// with run.
type warmer struct {
	client cacheclient.Client
	jobs   int
	begun  time.Time
	before int64 // bytes from the source when it began

	// mu guards the rest.
	mu    sync.Mutex
	state WarmProgress
	// samples are BytesDone at the last warmWindow ticks.
	samples []int64
	// failed is the first failure of a file or directory.
	failed error
}

func newWarmer(client cacheclient.Client, jobs int) *warmer {
	return &warmer{
		client: client, jobs: jobs, begun: time.Now(), before: client.Counters().BytesSource,
		state: WarmProgress{Listing: true},
	}
}

// run walks and fetches until all is done or ctx ends. A file that fails, or a directory that cannot be listed, is
// counted, and the others go on.
func (w *warmer) run(ctx context.Context, root cacheclient.Info) error {
	files := make(chan cacheclient.Info, warmAhead)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(files)
		defer w.update(func(p *WarmProgress) { p.Listing = false })
		return w.walk(ctx, root, files)
	})
	for range w.jobs {
		g.Go(func() error {
			for f := range files {
				if err := w.fetch(ctx, f); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// walk sends every file at or below info, a page of each directory at a time.
func (w *warmer) walk(ctx context.Context, info cacheclient.Info, files chan<- cacheclient.Info) error {
	if !info.Dir {
		w.update(func(p *WarmProgress) {
			p.FilesTotal++
			p.BytesTotal += max(info.Size, 0)
		})
		select {
		case files <- info:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for from := (cacheclient.Cursor{}); ; {
		page, err := w.client.List(ctx, info.Path, from, warmPage, true)
		if err != nil {
			return w.unlisted(ctx, info.Path, err)
		}
		for _, e := range page.Entries {
			if err := w.walk(ctx, e, files); err != nil {
				return err
			}
		}
		from = page.Next
		if page.End || len(page.Entries) == 0 {
			return nil
		}
	}
}

// unlisted counts a directory that cannot be listed, or not to its end. It returns an error only when all must stop.
func (w *warmer) unlisted(ctx context.Context, dir string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.update(func(p *WarmProgress) {
		p.DirsFailed++
		if len(p.FailedDirs) < warmNamed {
			// A copy: lines of progress have the former.
			p.FailedDirs = append(slices.Clone(p.FailedDirs), "/"+dir)
		}
	})
	w.failedBy(err)
	return nil
}

// fetch warms one file. It returns an error only when all must stop.
func (w *warmer) fetch(ctx context.Context, f cacheclient.Info) error {
	w.update(func(p *WarmProgress) { p.File = f.Path })
	done := int64(0)
	err := w.client.Warm(ctx, f.Path, func(cached int64) {
		w.update(func(p *WarmProgress) {
			if cached > done {
				p.BytesDone += cached - done
				done = cached
			}
		})
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		w.update(func(p *WarmProgress) { p.FilesFailed++ })
		w.failedBy(fmt.Errorf("%s: %w", f.Path, err))
		return nil
	}
	w.update(func(p *WarmProgress) {
		p.FilesDone++
		p.BytesDone += max(f.Size-done, 0)
		done = max(f.Size, done)
	})
	return nil
}

// failedBy keeps the first failure.
func (w *warmer) failedBy(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = err
	}
}

// update changes the state under the lock.
func (w *warmer) update(change func(*WarmProgress)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.state)
}

// progress is a copy of the state with the rate over the last ticks; it is called once a tick.
func (w *warmer) progress() WarmProgress {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples = append(w.samples, w.state.BytesDone)
	if len(w.samples) > warmWindow {
		w.samples = w.samples[1:]
	}
	p := w.state
	p.BytesSource = w.client.Counters().BytesSource - w.before
	if n := len(w.samples) - 1; n > 0 {
		p.Rate = float64(w.samples[n]-w.samples[0]) / (time.Duration(n) * warmTick).Seconds()
	}
	return p
}

// final is the last line: err is what ended the walk, nil where nothing did.
func (w *warmer) final(err error) WarmProgress {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.state
	p.Done, p.Listing = true, false
	p.BytesSource = w.client.Counters().BytesSource - w.before
	p.Rate = float64(p.BytesSource) / max(time.Since(w.begun).Seconds(), 1e-3)
	if err == nil {
		err = w.failed
	}
	switch {
	case errors.Is(err, context.Canceled):
		p.Error = "the warming was stopped"
	case err != nil:
		p.Error = err.Error()
	}
	if quota := w.client.Capacity().Quota; quota > 0 && p.BytesTotal > quota {
		p.Warning = fmt.Sprintf("the %d bytes are more than the quota of %d bytes: what came first is no longer cached",
			p.BytesTotal, quota)
	}
	return p
}
