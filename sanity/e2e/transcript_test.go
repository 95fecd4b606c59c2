package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// transcript is what was typed and seen, in Markdown.
type transcript struct{ text strings.Builder }

// say adds a paragraph.
func (tr *transcript) say(format string, args ...any) {
	fmt.Fprintf(&tr.text, format+"\n\n", args...)
}

// show adds a command and its output.
func (tr *transcript) show(command, output string) {
	fmt.Fprintf(&tr.text, "```console\n$ %s\n%s\n```\n\n", command, strings.TrimRight(output, "\n"))
}

// kubectl runs a command that becomes a part of the page.
func (tr *transcript) kubectl(t *testing.T, r *rig, command string) string {
	t.Helper()
	out := r.kubectl(t, strings.Fields(command)...)
	tr.show("kubectl "+command, out)
	return out
}
