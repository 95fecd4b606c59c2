package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"millrace.io/millrace/sanity/session"
)

// printTable prints what each copy and each mapping took, and what that cost the source.
func printTable(w io.Writer, source tree, status session.Status, r results, verdicts []verdict) {
	first, second := r.copies[0], r.copies[1]
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(what, one, two string) { fmt.Fprintf(t, "  %s\t%s\t%s\n", what, one, two) }
	row("", "first", "second")
	row("the model by mmap", r.cold.rate(), r.warm.rate())
	row("cp -r of all, seconds", fmt.Sprintf("%.2f", first.took.Seconds()), fmt.Sprintf("%.2f", second.took.Seconds()))
	row("times faster", "-", fmt.Sprintf("%.1f x", first.took.Seconds()/second.took.Seconds()))
	row("bytes from the source", size(first.cost.BodyBytes+r.cold.cost.BodyBytes),
		size(second.cost.BodyBytes+r.warm.cost.BodyBytes))
	row("requests to the source", humanize.Comma(first.cost.Requests+r.cold.cost.Requests),
		humanize.Comma(second.cost.Requests+r.warm.cost.Requests))
	row("files compared", humanize.Comma(int64(verdicts[0].files)), humanize.Comma(int64(verdicts[1].files)))
	row("files that differ", humanize.Comma(int64(len(verdicts[0].wrong))),
		humanize.Comma(int64(len(verdicts[1].wrong))))
	_ = t.Flush()
	fmt.Fprintln(w, "\n  The model was mapped ahead of the first copy, which found it cached.")
	if os.Geteuid() != 0 {
		fmt.Fprintln(w, "  Without root the page cache was kept: the second times are the kernel's as well.")
	}
	// What the second copy did not take from the source was cached.
	cached := 100 * (1 - float64(second.cost.BodyBytes+r.warm.cost.BodyBytes)/float64(source.bytes))
	fmt.Fprintf(w, "\n  cached            %.1f %% of %s in %s files\n", cached, size(source.bytes),
		humanize.Comma(int64(source.files)))
	fmt.Fprintf(w, "  millrace status   %s of the quota of %s in use (files are rounded up to pages, and have a page "+
		"of state), %s known in %s files\n",
		size(status.Capacity.Used), size(status.Capacity.Quota), size(status.Counters.BytesKnown),
		humanize.Comma(status.Counters.FilesKnown))
}

// size shows bytes for people, zero as zero.
func size(n int64) string { return humanize.Bytes(uint64(n)) }
