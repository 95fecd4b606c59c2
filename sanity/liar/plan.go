package liar

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of source.
type Kind string

// The kinds.
const (
	Local   Kind = "local"
	HTTP    Kind = "http"
	S3      Kind = "s3"
	Alluxio Kind = "alluxio"
)

// Source is a place that lies: a server, or a directory that changes underneath.
type Source interface {
	// Mount is what `millrace mount` is given, and the flags that it needs.
	Mount() (source string, flags []string)
	// Show makes the version of a file, which the world has by now, the one that the source shows.
	Show(f *File, v Version) error
	// ShowTurn has a guest come or go.
	ShowTurn(f *File, there bool) error
	// Close ends the source.
	Close() error
}

// sources makes a source of each kind.
var sources = map[Kind]func(Plan, *World) (Source, error){
	Local:   newDirectory,
	HTTP:    newWeb,
	S3:      newBucket,
	Alluxio: newAlluxio,
}

// Kinds are those that seeds are of in turn.
func Kinds() []Kind {
	kinds := make([]Kind, 0, len(sources))
	for k := range sources {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

// Plan is what a seed is about. All of it is drawn from the seed.
type Plan struct {
	Seed   Seed
	Kind   Kind
	Themes []string
	// Length is how long lies are told.
	Length time.Duration
	// Readers are as many goroutines.
	Readers int
	// Revalidate, Timeout, Quota and Connections are flags of the mount.
	Revalidate, Timeout time.Duration
	Quota               int64
	Connections         int
	// Passthrough lets the kernel read what is cached whole by itself.
	Passthrough bool
	// Signals reach the threads of readers all the while, as those of timers and profilers do.
	Signals bool
	// Kill is the time between two deaths of the process, 0 without any.
	Kill time.Duration
	// Again has everything mounted anew after the truce: "" not, "unmount" in order, "kill" after kill -9 of all.
	Again string
	// Dir is where the source and the tier may put files.
	Dir string
}

// timeout is the client's patience with a source.
const timeout = 2 * time.Second

// Draw makes the plan of a seed.
func Draw(seed Seed) Plan {
	kinds := Kinds()
	kind := kinds[uint64(seed)%uint64(len(kinds))]
	d := seed.Dice("plan")
	p := Plan{
		Seed: seed, Kind: kind, Length: 4 * time.Second, Readers: 8, Timeout: timeout,
		Revalidate: pick(d, 0, 0, 200*time.Millisecond), Quota: pick[int64](d, 16<<20, 64<<20, 64<<20, 256<<20),
		Connections: pick(d, 4, 16, 16), Passthrough: chance(d, 0.7), Again: pick(d, "", "unmount", "unmount", "kill"),
	}
	if chance(d, 0.4) {
		p.Kill = time.Duration(500+d.IntN(1500)) * time.Millisecond
	}
	p.Signals = chance(d, 0.25)
	p.Themes = drawThemes(d, kind)
	return p
}

// drawThemes draws one to three themes. Few at a time, so that a fault is not hidden by the next one.
func drawThemes(d *rand.Rand, kind Kind) []string {
	names := themesOf(kind)
	d.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:1+d.IntN(min(3, len(names)))]
	slices.Sort(names)
	return names
}

// below reports whether files of this machine are what is shown.
func (p Plan) below() bool { return p.Kind == Local || p.Kind == Alluxio }

// Has reports whether the plan has the theme.
func (p Plan) Has(theme string) bool { return slices.Contains(p.Themes, theme) }

// String tells the plan in a line.
func (p Plan) String() string {
	s := fmt.Sprintf("%s: %s; revalidate %v, quota %d MiB, %d connections", p.Kind, strings.Join(p.Themes, ", "),
		p.Revalidate, p.Quota>>20, p.Connections)
	if !p.Passthrough {
		s += ", no passthrough"
	}
	if p.Signals {
		s += ", signals"
	}
	if p.Kill > 0 {
		s += fmt.Sprintf(", killed each %v", p.Kill)
	}
	if p.Again != "" {
		s += ", mounted again after " + p.Again
	}
	return s
}
