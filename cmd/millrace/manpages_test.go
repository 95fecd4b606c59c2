package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace.io/millrace/cmd/command/manpage"
)

// TestManPages writes the page of each command: what cmd/internal/manpages runs.
func TestManPages(t *testing.T) {
	root := newMillrace()
	dir := manpage.Write(t, root.Command)
	for _, name := range []string{"millrace", "millrace-mount", "millrace-top", "millrace-completion"} {
		page, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil || !strings.Contains(string(page), ".SH SYNOPSIS") {
			t.Errorf("%s: %q, %v", name, page, err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, name := range pages {
		// They are flags of a library, which every command refuses.
		if page, err := os.ReadFile(name); err != nil || strings.Contains(string(page), "cpuprofile") ||
			strings.Contains(string(page), "--stats") {
			t.Errorf("%s has flags that there are not, or %v", filepath.Base(name), err)
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "millrace-mount.1"))
	if err != nil || !strings.Contains(string(page), `\fB--quota\fP=SIZE`) || strings.Contains(string(page), "spf13") {
		t.Errorf("%s, %v", page, err)
	}
}
