// Command storm runs seeds of sanity/liar against the program: sources that lie by a seed, and a model that knows what
// is right.
//
//	storm -for 10m             seed after seed, from a new one on
//	storm -seed 17 -times 3    one seed, three times
//
// It says at least every eight seconds how far it is. A seed that fails is printed with its faults and the command that
// replays it, and what explains it is kept in the directory of -keep. The exit code is 1 then, and 2 for wrong usage.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace.io/millrace/sanity/liar"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/session"
)

// every is the time between two lines of progress.
const every = 5 * time.Second

// settings are the command line.
type settings struct {
	bin, keep, kinds, theme string
	length                  time.Duration
	seed                    int64
	from                    uint64
	times, parallel         int
	goOn                    bool
}

func main() {
	var c settings
	flag.StringVar(&c.bin, "millrace", "bin/millrace", "the `program` to try")
	flag.DurationVar(&c.length, "for", 10*time.Minute, "`time` after which no seed begins any more")
	flag.Int64Var(&c.seed, "seed", -1, "the one `seed` to run; -1 runs one after the other")
	flag.Uint64Var(&c.from, "from", uint64(time.Now().Unix())*1000, "the first `seed`")
	flag.IntVar(&c.times, "times", 3, "how `often` -seed is run, until it fails: what goroutines do is not of the seed")
	flag.IntVar(&c.parallel, "parallel", 2, "`seeds` that run side by side")
	flag.StringVar(&c.kinds, "kinds", "", "comma-separated `kinds` of sources to try, all where it is empty")
	flag.StringVar(&c.theme, "theme", "", "only seeds that have this `theme`")
	flag.StringVar(&c.keep, "keep", "bin/storm-faults", "`directory` for what explains a failed seed")
	flag.BoolVar(&c.goOn, "go-on", false, "do not stop at the first seed that fails")
	flag.Parse()
	if err := c.check(); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(2)
	}
	os.Exit(run(c))
}

// check looks for what can be known to be wrong.
func (c *settings) check() (err error) {
	for _, kind := range strings.FieldsFunc(c.kinds, func(r rune) bool { return r == ',' }) {
		if !slices.Contains(liar.Kinds(), liar.Kind(kind)) {
			return fmt.Errorf("-kinds %q: %v are accepted", kind, liar.Kinds())
		}
	}
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("%q: no arguments are taken", flag.Arg(0))
	case c.parallel < 1 || c.times < 1:
		return fmt.Errorf("-parallel %d, -times %d: numbers from 1 on are accepted", c.parallel, c.times)
	}
	if why := session.CanMount(); why != "" {
		return fmt.Errorf("this machine cannot mount: %s", why)
	}
	c.bin, err = filepath.Abs(c.bin)
	return err
}

// storm is the state of all runs.
type storm struct {
	settings
	begun time.Time

	// mu guards the rest.
	mu             sync.Mutex
	running        map[liar.Seed]liar.Plan  // what runs now
	faults         map[string][]liar.Report // by rule and themes
	done, failed   int
	calls, refused int64
}

// run runs seeds until the time is over or one fails, and returns the exit code.
func run(c settings) int {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	s := &storm{settings: c, begun: time.Now(), running: map[liar.Seed]liar.Plan{}, faults: map[string][]liar.Report{}}
	fmt.Printf("storm: %v; %s\n", liar.Kinds(), pace.String())
	// So that an expected end is one: readers that hang take a while.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	seeds := make(chan liar.Seed)
	var all sync.WaitGroup
	for range c.parallel {
		all.Go(func() {
			for seed := range seeds {
				if s.try(ctx, seed) && !c.goOn {
					stop()
				}
			}
		})
	}
	var telling sync.WaitGroup
	telling.Go(func() { s.tell(ctx) })
	s.deal(ctx, seeds)
	close(seeds)
	all.Wait()
	stop()
	telling.Wait()
	return s.summary()
}

// deal hands out seeds.
func (s *storm) deal(ctx context.Context, seeds chan<- liar.Seed) {
	next := s.from
	for n := 0; ; n++ {
		seed := liar.Seed(next)
		next++
		switch {
		case s.seed >= 0 && n >= s.times, s.seed < 0 && time.Since(s.begun) > s.length:
			return
		case s.seed >= 0:
			seed = liar.Seed(s.seed)
		case !s.wanted(liar.Draw(seed)):
			n--
			continue
		}
		select {
		case seeds <- seed:
		case <-ctx.Done():
			return
		}
	}
}

// wanted reports whether the flags ask for such a plan.
func (s *storm) wanted(p liar.Plan) bool {
	return (s.kinds == "" || slices.Contains(strings.Split(s.kinds, ","), string(p.Kind))) &&
		(s.theme == "" || p.Has(s.theme))
}

// try runs a seed and reports whether it failed.
func (s *storm) try(ctx context.Context, seed liar.Seed) bool {
	plan := liar.Draw(seed)
	s.mu.Lock()
	s.running[seed] = plan
	s.mu.Unlock()
	report, err := liar.Run(ctx, s.bin, plan)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, seed)
	if ctx.Err() != nil {
		return false
	}
	s.done++
	s.calls += report.Calls
	s.refused += report.Refused
	if err == nil && len(report.Faults) == 0 {
		return false
	}
	s.failed++
	fmt.Printf("storm: seed %d FAILS (%s)\n", seed, plan)
	if err != nil {
		fmt.Printf("    the test bed: %v\n", err)
	}
	for _, f := range report.Faults {
		fmt.Printf("    %s\n", f)
		s.faults[f.Rule+" ("+string(plan.Kind)+")"] = append(s.faults[f.Rule+" ("+string(plan.Kind)+")"], report)
	}
	if kept, err := report.Keep(s.keep); err == nil {
		fmt.Printf("    replay: make storm SEED=%d; more is in %s\n", seed, kept)
	}
	return true
}

// tell prints how far the runs are.
func (s *storm) tell(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		var now []string
		for _, seed := range slices.Sorted(maps.Keys(s.running)) {
			now = append(now, fmt.Sprintf("%d (%s: %s)", seed, s.running[seed].Kind,
				strings.Join(s.running[seed].Themes, ", ")))
		}
		fmt.Printf("storm: %d s, %d seeds, %d failed, %d calls, %d of them refused; now %s\n",
			int(time.Since(s.begun).Seconds()), s.done, s.failed, s.calls, s.refused, strings.Join(now, " and "))
		s.mu.Unlock()
	}
}

// summary tells what was found, and returns the exit code.
func (s *storm) summary() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("storm: %d seeds in %d s, %d calls judged, %d of them refused as they may be, %d seeds failed\n",
		s.done, int(time.Since(s.begun).Seconds()), s.calls, s.refused, s.failed)
	for _, rule := range slices.Sorted(maps.Keys(s.faults)) {
		var seeds []string
		for _, r := range s.faults[rule] {
			if seed := strconv.FormatUint(uint64(r.Plan.Seed), 10); !slices.Contains(seeds, seed) {
				seeds = append(seeds, seed)
			}
		}
		fmt.Printf("    %s: seeds %s\n", rule, strings.Join(seeds[:min(len(seeds), 8)], " "))
	}
	if s.failed > 0 || s.done == 0 {
		return 1
	}
	return 0
}
