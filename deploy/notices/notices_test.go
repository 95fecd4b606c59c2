package notices

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module makes a module with files and tells of it, and of a package in it, as `go list` does.
func module(t *testing.T, path, dir string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]any{
		"Dir": filepath.Join(root, dir), "Module": map[string]any{"Path": path, "Version": "v1.0.0", "Dir": root},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRead collects the licences of two modules, one of which has a second one beside what is linked.
func TestRead(t *testing.T) {
	list := module(t, "example.org/b", "linked/deep", map[string]string{
		"LICENSE": "free for all\r\nto use", "linked/deep/COPYING.txt": "named", "other/LICENSE": "not linked",
		"linked/license.go": "package linked", "linked/deep/x.go": "package deep",
	}) + module(t, "example.org/a", "", map[string]string{"Licence.md": "free for all\r\nto use", "NOTICE": "by A"})
	l, err := read(strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("=", 80)
	want := "millrace's programs contain parts of the modules below, under the licences that follow their names.\n" +
		"\n" + line + "\nexample.org/a v1.0.0 (Licence.md)\nexample.org/b v1.0.0 (LICENSE)\n" + line +
		"\n\nfree for all\nto use\n" +
		"\n" + line + "\nexample.org/a v1.0.0 (NOTICE)\n" + line + "\n\nby A\n" +
		"\n" + line + "\nexample.org/b v1.0.0 (linked/deep/COPYING.txt)\n" + line + "\n\nnamed\n"
	if got := string(l.ThirdParty); got != want {
		t.Errorf("%s\nand not\n%s", got, want)
	}
}

func TestNoLicence(t *testing.T) {
	_, err := read(strings.NewReader(module(t, "example.org/bare", "", map[string]string{"README": "x"})))
	if err == nil || err.Error() != "module example.org/bare v1.0.0 has no file with its licence, and must not be "+
		"passed on without" {
		t.Error(err)
	}
}

// TestCollect reads those of the smallest program.
func TestCollect(t *testing.T) {
	for _, architecture := range []string{"amd64", "arm64"} {
		l, err := Collect(t.Context(), architecture, "millrace-keeper")
		if err != nil {
			t.Fatal(err)
		}
		own, err := os.ReadFile("../../LICENSE")
		if err != nil || string(l.Own) != string(own) {
			t.Errorf("millrace's own licence is another: %v", err)
		}
		for _, want := range []string{"Go's own packages (LICENSE)", "The Go Authors", "golang.org/x/sys v"} {
			if !strings.Contains(string(l.ThirdParty), want) {
				t.Errorf("%s: %q is not among the licences", architecture, want)
			}
		}
	}
}
