// Command bench measures millrace beside what a user would otherwise take: the native
// file system, rclone mount with its full cache, and curl. README.md describes each case.
//
// The life of a run: build rclone once (rclone.go), write random files to memory (data.go), start a web server
// as a process of its own for each kind of source (server.go), then go through the rounds. In
// a round every case is measured for every system, one right after the other, in an order that
// changes from round to round, so that what disturbs the machine disturbs them alike. Each group
// of cases that share mounts has a file: warm.go, cold.go, listing.go, memory.go, controller.go; measure.go holds what
// is run for each single measurement. The values are kept in results.go and judged by
// the targets in cases.go.
//
// The exit code is 0 when all that was asked for was measured, whether or not the
// targets were met; 1 when a measurement failed; 2 for wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"millrace.io/millrace/sanity/session"
)

// settings are the command line.
type settings struct {
	draw    bool
	bin     string
	results string
	deploy  string
	rounds  int
	size    int64
	files   int
	cases   map[string]bool
}

func main() {
	if len(os.Args) > 1 {
		if role, ok := children[os.Args[1]]; ok {
			exit(role(os.Args[2:]), 1)
		}
	}
	cfg, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	exit2 := 2
	if err == nil {
		err, exit2 = run(cfg), 1
	}
	exit(err, exit2)
}

// exit ends the program, with the code if there was an error.
func exit(err error, code int) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(code)
	}
	os.Exit(0)
}

// parse reads the command line.
func parse(args []string) (settings, error) {
	cfg := settings{cases: map[string]bool{}}
	var size, cases string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&cfg.bin, "millrace", "bin/millrace", "the `program` to measure")
	fs.StringVar(&cfg.results, "results", "results.json", "the `file` that the results are written to")
	fs.StringVar(&cfg.deploy, "deploy", "deploy", "the `directory` with the CRDs, for the controller's cases")
	fs.IntVar(&cfg.rounds, "rounds", 3, "how often each case is measured")
	fs.BoolVar(&cfg.draw, "draw", false, "draw the plot of the results file again, and measure nothing")
	fs.StringVar(&size, "size", "1GiB", "`size` of each large file; four of them and their copies must fit into memory")
	fs.IntVar(&cfg.files, "files", 100_000, "how many files ls-warm lists")
	fs.StringVar(&cases, "cases", "", "comma-separated `names` of the cases to measure instead of all: "+
		strings.Join(caseNames(), ","))
	if err := fs.Parse(args); err != nil {
		return cfg, err
	}
	n, err := humanize.ParseBytes(size)
	if err != nil || n < 16<<20 {
		return cfg, fmt.Errorf("-size %q: a size of at least 16MiB is wanted", size)
	}
	cfg.size = int64(n)
	if cfg.rounds < 1 || cfg.files < 1 || fs.NArg() > 0 {
		return cfg, fmt.Errorf("-rounds %d -files %d %q: both are at least 1, and no arguments are taken", cfg.rounds,
			cfg.files, fs.Args())
	}
	for name := range strings.SplitSeq(cases, ",") {
		if name != "" && !slices.Contains(caseNames(), name) {
			return cfg, fmt.Errorf("-cases %q: the cases are %s", name, strings.Join(caseNames(), ", "))
		}
		cfg.cases[name] = true
	}
	cfg.bin, err = filepath.Abs(cfg.bin)
	return cfg, err
}

// wants reports whether the case was asked for.
func (c settings) wants(name string) bool { return c.cases[""] || c.cases[name] }

// run measures, prints and writes.
func run(cfg settings) error {
	if cfg.draw {
		return redraw(cfg.results)
	}
	if why := session.CanMount(); why != "" {
		return fmt.Errorf("this machine cannot mount: %s", why)
	}
	s := session.New(context.Background())
	defer s.Close()
	b, err := prepare(s, cfg)
	if err != nil {
		return err
	}
	for _, st := range stages() {
		if s.Context().Err() == nil {
			b.measureStage(st)
		}
	}
	if err := s.Context().Err(); err != nil {
		return errors.New("interrupted, nothing is written")
	}
	b.results.report(os.Stdout)
	if err := b.results.write(cfg.results); err != nil {
		return err
	}
	fmt.Printf("\nwritten to %s\n", cfg.results)
	if err := redraw(cfg.results); err != nil {
		return err
	}
	return b.results.failure()
}
