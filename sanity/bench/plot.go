package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"slices"
	"strings"
)

// The plot's measures, in pixels.
const (
	plotLabels = 250
	plotBars   = 520
	plotRight  = 150
	plotBar    = 13
	plotGap    = 14
	plotTop    = 64
	// plotDecades is how many powers of ten the axis spans.
	plotDecades = 5
)

// colours are those of the systems, told apart in grey as well.
var colours = map[string]string{
	millrace: "#0b6e4f", native: "#9a9a9a", rclone: "#d98e04", curl: "#5b7db1", alluxioFuse: "#c0392b",
	alluxioCLI: "#e3a79f",
}

// draw writes the plot of the Alluxio cases beside the file of the results.
func (r *results) draw(name string) error {
	f, err := os.Create(strings.TrimSuffix(name, ".json") + ".svg")
	if err != nil {
		return err
	}
	err = r.plot(f, "Reading through Alluxio, beside millrace", "alluxio-")
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// redraw draws the plot of a file of results.
func redraw(name string) error {
	r, err := load(name)
	if err != nil {
		return err
	}
	return r.draw(name)
}

// plot draws how much better or worse than millrace each other system is, a group of bars for each case whose name
// begins with prefix, on a logarithmic axis: 1 is millrace, to the right of it is better than millrace.
func (r *results) plot(w io.Writer, title, prefix string) error {
	rows := r.rows(prefix)
	height := plotTop + 40
	for _, row := range rows {
		height += len(row.bars)*plotBar + plotGap
	}
	width := plotLabels + plotBars + plotRight
	p := &printer{w: w}
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`,
		width, height)
	p.f(`<rect width="%d" height="%d" fill="white"/>`, width, height)
	p.f(`<text x="12" y="22" font-size="15" font-weight="bold">%s</text>`, html.EscapeString(title))
	p.f(`<text x="12" y="42" fill="#555">each bar: the other system as a multiple of millrace; 1 is millrace, left of it is worse than millrace (logarithmic)</text>`)
	for d := -plotDecades + 1; d <= 1; d++ {
		x := plotX(math.Pow(10, float64(d)))
		colour := "#e4e4e4"
		if d == 0 {
			colour = colours[millrace]
		}
		p.f(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`, x, plotTop-8, x, height-30, colour)
		p.f(`<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g x</text>`, x, height-14,
			math.Pow(10, float64(d)))
	}
	y := plotTop
	for _, row := range rows {
		p.f(`<text x="12" y="%d">%s</text>`, y+10, html.EscapeString(row.name))
		for _, b := range row.bars {
			from, to := plotX(1), plotX(b.times)
			p.f(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, min(from, to), y, math.Abs(to-from)+1,
				plotBar-3, colours[b.system])
			p.f(`<text x="%.1f" y="%d" fill="#333" font-size="10">%s %.2g x</text>`, max(from, to)+5, y+9,
				html.EscapeString(b.system), b.times)
			y += plotBar
		}
		y += plotGap
	}
	p.f(`</svg>`)
	return p.err
}

// plotRow is a case, and its bars.
type plotRow struct {
	name string
	bars []plotBarOf
}

// plotBarOf is another system, as a multiple of millrace.
type plotBarOf struct {
	system string
	times  float64
}

// rows are the cases whose names begin with prefix, and that another system was measured in.
func (r *results) rows(prefix string) []plotRow {
	var rows []plotRow
	for _, c := range cases() {
		own, ok := r.find(c.name, millrace)
		if !ok || own.Value == 0 || !strings.HasPrefix(c.name, prefix) {
			continue
		}
		row := plotRow{name: c.name}
		for _, system := range systems() {
			v, ok := r.find(c.name, system)
			if !ok || system == millrace || v.Value == 0 {
				continue
			}
			times := v.Value / own.Value
			if lessIsBetter(c.unit) {
				times = own.Value / v.Value
			}
			row.bars = append(row.bars, plotBarOf{system, times})
		}
		if len(row.bars) > 0 {
			rows = append(rows, row)
		}
	}
	return rows
}

// plotX is where a multiple lies.
func plotX(times float64) float64 {
	at := (math.Log10(times) + plotDecades - 1) / plotDecades
	return plotLabels + plotBars*min(max(at, 0), 1)
}

// lessIsBetter tells units of which less is better.
func lessIsBetter(unit string) bool {
	return slices.Contains([]string{"s", "ms", "MB", "x", "s/GB", "CPU s/GB"}, unit)
}

// printer writes lines until one fails.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}
