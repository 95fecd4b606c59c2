package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"millrace.io/millrace/sanity/session"
)

// bench is one run: what it measures with, and what it has measured so far.
type bench struct {
	session *session.Session
	cfg     settings
	work    string // a directory in memory
	data    string // what the servers serve
	rclone  string // rclone's path, "" when it is not here
	program session.Millrace
	results results

	// The sources: without limits, and two that stand for remote ones. nil when no case wants them.
	bare, limited, delayed *webServer

	// lists are the mounts of ls-warm, which last for all rounds.
	lists map[string]*mount
	// alluxio is the running cluster, nil while there is none.
	alluxio *alluxioRig
	// skipped are the systems that have been reported as not there.
	skipped map[string]bool
	made    int // mounts made so far, for their names
}

// group is some cases that are measured together, since they share mounts.
type group struct {
	cases   []string
	measure func(b *bench, round int) error
}

// stage is groups that share what has to run beside them. Its rounds are done before the next stage begins, so that no
// cluster runs while something else is measured.
type stage struct {
	groups []group
	// begin starts what the groups need, and end stops it; nil where they need nothing. An error skips the stage.
	begin, end func(b *bench) error
}

// stages are in the order in which they are measured.
func stages() []stage {
	return []stage{
		{groups: groups()},
		{alluxioGroups(), (*bench).startAlluxio, (*bench).stopAlluxio},
		{delayGroups(), (*bench).startDelayed, (*bench).stopAlluxio},
		{controllerGroups(), (*bench).haveAPI, func(*bench) error { return nil }},
	}
}

// groups are those without a cluster, in the order in which they are measured.
func groups() []group {
	return []group{
		{[]string{"mount"}, (*bench).measureMount},
		{[]string{"first-byte"}, (*bench).measureFirstByte},
		{[]string{"warm-seq", "warm-seq-copy", "warm-rand4k", "warm-mmap"}, (*bench).measureWarm},
		{[]string{"cold-seq", "cold-traffic"}, (*bench).measureCold},
		{[]string{"cold-seq-limited"}, (*bench).measureColdLimited},
		{[]string{"cold-seq-delay"}, (*bench).measureColdDelay},
		{[]string{"ls-warm"}, (*bench).measureList},
		{[]string{"memory"}, (*bench).measureMemory},
	}
}

// prepare makes what all rounds share.
func prepare(s *session.Session, cfg settings) (*bench, error) {
	b := &bench{session: s, cfg: cfg, lists: map[string]*mount{}, skipped: map[string]bool{}}
	var err error
	if b.wantsAny(stages()[0]) {
		if b.rclone, err = buildRclone(s); err != nil {
			// What it is compared with may not be had here; what is measured is.
			fmt.Println("without rclone:", err)
			b.rclone = ""
		}
	}
	if b.program, err = session.NewMillrace(s, cfg.bin); err != nil {
		return nil, err
	}
	if all := stages(); !slices.ContainsFunc(all[:len(all)-1], b.wantsAny) {
		// The controller reads no data.
		return b, nil
	}
	if b.work, err = s.TempDir("/dev/shm", "millrace-bench-"); err != nil {
		return nil, err
	}
	if err := checkRoom(cfg, b.work); err != nil {
		return nil, err
	}
	b.data = filepath.Join(b.work, "data")
	if err := os.Mkdir(b.data, 0o755); err != nil {
		return nil, err
	}
	fmt.Println("writing random files to memory")
	if err := makeData(cfg, b.data); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		fmt.Println("not root: the page cache is not dropped between reads, and there is no passthrough")
	}
	return b, b.startServers()
}

// startServers starts the processes that serve the data.
func (b *bench) startServers() error {
	var err error
	if b.bare, err = startServer(b.session, b.data); err != nil {
		return err
	}
	if b.limited, err = startServer(b.session, b.data, "-total", "200000000"); err != nil {
		return err
	}
	b.delayed, err = startServer(b.session, b.data, "-connection", "50000000", "-delay", "20ms")
	return err
}

// wantsAny reports whether one of the stage's cases was asked for.
func (b *bench) wantsAny(st stage) bool {
	return slices.ContainsFunc(st.groups, func(g group) bool { return slices.ContainsFunc(g.cases, b.cfg.wants) })
}

// measureStage measures all rounds of a stage, if one of its cases was asked for.
func (b *bench) measureStage(st stage) {
	if !b.wantsAny(st) {
		return
	}
	if st.begin != nil {
		err := st.begin(b)
		defer func() {
			if err := st.end(b); err != nil {
				b.failed("the end of", st.groups[0].cases[0], err)
			}
		}()
		switch {
		case errors.Is(err, errAbsent):
			if !b.skipped[err.Error()] {
				b.skipped[err.Error()] = true
				fmt.Printf("the cases %s and on are skipped: %v\n", st.groups[0].cases[0], err)
			}
			return
		case err != nil:
			b.failed(strings.Join(stageCases(st), ", "), "", err)
			return
		}
	}
	for round := range b.cfg.rounds {
		fmt.Printf("round %d of %d\n", round+1, b.cfg.rounds)
		for _, g := range st.groups {
			if b.session.Context().Err() != nil {
				return
			}
			b.measureGroup(g, round)
		}
	}
}

// stageCases are the names of all cases of a stage.
func stageCases(st stage) []string {
	var names []string
	for _, g := range st.groups {
		names = append(names, g.cases...)
	}
	return names
}

// measureGroup measures the group's cases in one round if one of them was asked for.
func (b *bench) measureGroup(g group, round int) {
	if !slices.ContainsFunc(g.cases, b.cfg.wants) {
		return
	}
	fmt.Printf("  %s\n", strings.Join(g.cases, ", "))
	if err := g.measure(b, round); err != nil && b.session.Context().Err() == nil {
		b.failed(strings.Join(g.cases, ", "), "", err)
	}
}

// keep adds a value if its case was asked for.
func (b *bench) keep(name, system string, value float64) {
	if !b.cfg.wants(name) {
		return
	}
	b.results.add(name, system, value)
	fmt.Printf("    %-28s %-12s %s\n", name, system, number(value))
}

// failed notes and shows that a measurement failed; the others go on.
func (b *bench) failed(name, system string, err error) {
	if b.session.Context().Err() != nil {
		return
	}
	what := strings.TrimSpace(name + " " + system)
	b.results.fail(what, err)
	fmt.Printf("    %s failed: %v\n", what, err)
}

// errAbsent says that a system is not on this machine, which is no failure.
var errAbsent = errors.New("not on this machine")

// turns are the systems that are here, in an order that changes from round to round.
func (b *bench) turns(round int, systems ...string) []string {
	var here []string
	for _, system := range systems {
		if b.has(system) {
			here = append(here, system)
		}
	}
	n := round % max(1, len(here))
	return append(here[n:len(here):len(here)], here[:n]...)
}

// has reports whether the system can be measured here, and once says why not.
func (b *bench) has(system string) bool {
	absent := system == rclone && b.rclone == "" || system == curl && lookUp("curl") == ""
	if absent && !b.skipped[system] {
		b.skipped[system] = true
		fmt.Printf("    %s is skipped: %v\n", system, errAbsent)
	}
	return !absent
}
