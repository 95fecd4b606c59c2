package liar

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// grower makes the tree of a world, theme by theme.
type grower struct {
	world *World
	plan  Plan
	dice  *rand.Rand
	dir   *Dir
}

// themes are what a world may be odd in, for each kind of source. Each grows in a directory of its own name.
var themes = map[Kind]map[string]func(*grower){
	HTTP: {
		"sizes": (*grower).sizes, "heads": (*grower).heads, "ranges": (*grower).plain, "bodies": (*grower).plain,
		"moments": (*grower).plain,
		"tags":    (*grower).tags, "changes": (*grower).changes, "bare": (*grower).bare, "pages": (*grower).pages,
		"slashes": (*grower).slashes,
		"names":   (*grower).names, "links": (*grower).links, "crowd": (*grower).crowd,
	},
	S3: {
		"sizes": (*grower).sizes, "ranges": (*grower).plain, "bodies": (*grower).plain, "moments": (*grower).plain,
		"tags": (*grower).tags, "changes": (*grower).changes, "pages": (*grower).pages, "names": (*grower).names,
		"crowd": (*grower).crowd,
	},
	Alluxio: {
		"sizes": (*grower).sizes, "changes": (*grower).changes, "pages": (*grower).pages, "names": (*grower).names,
		"crowd":   (*grower).crowd,
		"moments": (*grower).plain,
	},
	Local: {
		"sizes": (*grower).sizes, "changes": (*grower).changes, "pages": (*grower).pages, "names": (*grower).names,
		"crowd": (*grower).crowd,
		"times": (*grower).times, "kinds": (*grower).plain,
	},
}

// themesOf are the names of a kind's themes, in order.
func themesOf(kind Kind) []string {
	var names []string
	for name := range themes[kind] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Grow makes the world of a plan.
func Grow(p Plan) *World {
	w := NewWorld(p.Seed)
	g := &grower{world: w, plan: p, dice: p.Seed.Dice("tree")}
	g.dir = w.AddDir(&Dir{Path: "honest", Honest: true})
	for i, size := range []int64{0, 1, 4095, 4096, 70_000, 300_000, 1 << 20, 3<<20 + 11} {
		g.file(fmt.Sprintf("h%d", i), size, File{Honest: true, Fixed: true})
	}
	for _, theme := range p.Themes {
		g.dice = p.Seed.Dice("tree", theme)
		g.dir = w.AddDir(&Dir{Path: theme})
		themes[p.Kind][theme](g)
	}
	return w
}

// file adds a file to the directory.
func (g *grower) file(name string, size int64, f File) {
	f.Path = join(g.dir.Path, name)
	g.world.AddFile(&f, size)
}

// size draws a size: small ones, those at borders, and a few of several blocks.
func (g *grower) size() int64 {
	switch g.dice.IntN(6) {
	case 0:
		return pick[int64](g.dice, 1, 100, 4095, 4096, 4097, 65536, 1<<20-1, 1<<20, 1<<20+1)
	case 1, 2:
		return 1<<20 + g.dice.Int64N(2<<20)
	}
	return 1 + g.dice.Int64N(300_000)
}

// plain has files with nothing of their own: what is odd is said for the moment.
func (g *grower) plain() {
	for i := range 8 {
		g.file(fmt.Sprintf("f%d", i), g.size(), File{Sign: pick(g.dice, Strong, Strong, Weak, Clock), Fixed: true})
	}
}

// sizes has files that claim to have more bytes than there are.
func (g *grower) sizes() {
	claims := []string{"4611686018427387904", "9223372036854775807", "1125899906842625"}
	switch g.plan.Kind {
	case HTTP:
		claims = append(claims, "9223372036854775808", "-1", "-9223372036854775808", "99999999999999999999")
	case S3:
		// What is no number makes a listing unreadable for every client.
		claims = append(claims, "-1", "-9223372036854775808")
	}
	for i, c := range claims {
		g.file(fmt.Sprintf("claims%d", i), 1000, File{Claims: c, Fixed: true})
	}
	g.plain()
}

// heads has files about which HEAD never tells the truth.
func (g *grower) heads() {
	for i, head := range []string{"zero", "half", "double", "none", "405", "501"} {
		g.file(fmt.Sprintf("%d-%s", i, head), g.size(), File{Head: head, Fixed: true})
	}
	g.plain()
}

// tags has files whose validators are weak, long, several or missing, and far times.
func (g *grower) tags() {
	g.file("weak", g.size(), File{Sign: Weak})
	g.file("clock", g.size(), File{Sign: Clock})
	g.file("long", g.size(), File{Sign: Strong, Huge: 1500})
	g.file("huge", g.size(), File{Sign: Strong, Huge: 100_000})
	for _, year := range []int{1, 1600, 1969, 2300, 9999} {
		g.file(fmt.Sprintf("year%d", year), g.size(), File{
			Sign: Strong,
			Time: time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC),
		})
	}
	for i := range 3 {
		g.file(fmt.Sprintf("backends%d", i), g.size(), File{Sign: Strong, Tags: 2 + i%2, Fixed: true})
	}
}

// changes has files that change, by each sign.
func (g *grower) changes() {
	for i, sign := range []Sign{Strong, Weak, Clock, Strong, Weak, Clock} {
		g.file(fmt.Sprintf("c%d", i), g.size()*2, File{Sign: sign})
	}
	if g.plan.below() {
		// The same size and time, and another inode.
		g.file("same0", g.size(), File{Sign: Silent})
		g.file("same1", g.size(), File{Sign: Silent})
		g.file("inplace0", 256<<10, File{Sign: Clock, InPlace: true, Pages: true})
		g.file("inplace1", 2<<20, File{Sign: Clock, InPlace: true, Pages: true})
		return
	}
	g.file("silent", g.size(), File{Sign: Silent, Pages: true, Untold: true})
	g.file("young", g.size(), File{Sign: Clock, Young: true, Pages: true})
}

// bare has files without validators, ranges or lengths of bodies, which grow and shrink.
func (g *grower) bare() {
	for i := range 4 {
		g.file(fmt.Sprintf("b%d", i), 100+g.size()/4, File{Sign: Length, Bare: true})
	}
	g.file("steady", 3<<20, File{Sign: Strong, Bare: true, Fixed: true})
}

// pages has a directory of many names, some of which come and go while it is read.
func (g *grower) pages() {
	for i := range 500 {
		g.file(fmt.Sprintf("steady-%04d-%s", i, strings.Repeat("x", i%40)), int64(i), File{Fixed: true})
	}
	for i := range 60 {
		f := &File{Path: join(g.dir.Path, fmt.Sprintf("%sguest-%03d", pick(g.dice, "", "a", "steady-0200", "t", "z"),
			i)), Guest: true, Fixed: true}
		g.world.AddGuest(f, int64(i))
	}
}

// slashes has directories that servers answer for in each way.
func (g *grower) slashes() {
	top := g.dir
	for i, d := range []Dir{
		{Slash: "none"},
		{Slash: "404"},
		{Slash: "index"},
		{Loop: true},
		{Twice: true},
		{Extra: []string{
			"%00", "..", "../..", "%2e%2e/", "/", "//other/host/", "http://other.example/x", "a%2Fb", "?C=N;O=D",
			"#top",
			"javascript:x", "mailto:x",
			"./", ".", "", "%2F", strings.Repeat("y", 1500),
		}},
	} {
		d.Path = join(top.Path, fmt.Sprintf("d%d%s", i, d.Slash))
		g.dir = g.world.AddDir(&d)
		for k := range 6 {
			g.file(fmt.Sprintf("f%d", k), 10+int64(k), File{Fixed: true})
		}
	}
	g.dir = top
	g.file("beside", 100, File{Fixed: true})
}

// oddNames mean something to a shell, a URL, HTML, or nothing at all.
var oddNames = []string{
	"a b", " leading", "trailing ", "100%", "%41", "%2F", "%zz", "ünïcødé", "日本語.txt", "🦀", "#hash", "a#b", "q?mark",
	"?", "-dash", "--", "-rf", "a&b;c", "a&amp;b", "<b>",
	`quote"'`, "colon:x", "plus+plus", "~tilde", ".hidden", "..data", "...", "index.html", `back\slash`, "[x]", "*",
	"$HOME", "`tick`", "a=b", "a,b", "@at", "!", "é", "e\u0301",
}

// brokenNames are no UTF-8, or have what terminals and XML dislike. Buckets and Alluxio have none of them.
var brokenNames = []string{
	"caf\xe9.bin", "\xff", "\xc3\x28", "\x80abc", "tab\there", "bell\a", "del\x7f", "new\nline",
	"cr\rx", "\x01",
}

// names has files with each odd name, of lengths up to the longest.
func (g *grower) names() {
	all := slices.Clone(oddNames)
	longest := 255
	switch g.plan.Kind {
	case HTTP, Local:
		all = append(all, brokenNames...)
	case Alluxio:
		// It lists no name with a question mark.
		all = slices.DeleteFunc(all, func(name string) bool { return strings.Contains(name, "?") })
	}
	if !g.plan.below() {
		longest = 900
	}
	all = append(all, strings.Repeat("l", 254), strings.Repeat("m", 255), strings.Repeat("n", longest))
	slices.Sort(all)
	for i, name := range slices.Compact(all) {
		g.file(name, int64(1+i*300), File{Fixed: true})
	}
}

// links has files that are elsewhere.
func (g *grower) links() {
	for i, link := range []string{"moved", "moved", "loop", "away", "odd"} {
		g.file(fmt.Sprintf("l%d%s", i, link), g.size(),
			File{Link: link, Fixed: true, Sign: pick(g.dice, Strong, Clock)})
	}
}

// crowd has more files than a cache keeps at hand, whose names no text holds.
func (g *grower) crowd() {
	end := "\xe9.bin"
	if g.plan.Kind == S3 || g.plan.Kind == Alluxio {
		end = "é.bin"
	}
	for i := range 180 {
		g.file(fmt.Sprintf("c%03d%s", i, end), 4096+g.dice.Int64N(24_000),
			File{Fixed: true, Sign: pick(g.dice, Strong, Clock)})
	}
	for i := range 12 {
		g.file(fmt.Sprintf("large%02d%s", i, end), 1<<20+g.dice.Int64N(3<<20), File{Fixed: true})
	}
}

// times has files of far times.
func (g *grower) times() {
	for _, year := range []int{
		-5000, 1, 1600, 1677, 1901, 1969, 1970, 2038, 2106, 2262, 2300, 2446, 9999, 10000,
		60000,
	} {
		g.file(fmt.Sprintf("year%d", year), g.size(), File{
			Time:  time.Date(year, 1, 2, 3, 4, 5, 6789, time.UTC),
			Fixed: true,
		})
	}
}
