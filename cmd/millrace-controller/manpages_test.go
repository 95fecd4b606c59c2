package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace.io/millrace/cmd/command/manpage"
)

// TestManPages writes the program's page: what cmd/internal/manpages runs.
func TestManPages(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(manpage.Write(t, controllerCommand().Command), "millrace-controller.1"))
	if err != nil || !strings.Contains(string(page), "millrace controller [flags]") ||
		!strings.Contains(string(page), `\fB--log-level\fP=LEVEL`) {
		t.Errorf("%s, %v", page, err)
	}
}
