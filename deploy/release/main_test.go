package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/deploy/image/layer"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"":                         `VERSION is not given: make release VERSION=v1.2.3`,
		"-version 1.2.3":           `VERSION "1.2.3": v1.2.3 or v1.2.3-rc.1 is accepted, as semantic versions are, without +build`,
		"-version v1.2":            `VERSION "v1.2": v1.2.3 or v1.2.3-rc.1 is accepted, as semantic versions are, without +build`,
		"-version v1.2.3+x":        `VERSION "v1.2.3+x": v1.2.3 or v1.2.3-rc.1 is accepted, as semantic versions are, without +build`,
		"-version v1.2.03":         `VERSION "v1.2.03": v1.2.3 or v1.2.3-rc.1 is accepted, as semantic versions are, without +build`,
		"-version v1.2.3 and more": `argument "and": there are only flags`,
	} {
		if _, err := parse(strings.Fields(args)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", args, err)
		}
	}
	for _, version := range []string{"v0.2.0", "v1.2.3-rc.1"} {
		if c, err := parse([]string{"-version", version}); err != nil || c.version != version {
			t.Errorf("%s: %+v, %v", version, c, err)
		}
	}
}

// git runs git in a checkout of the test's, as a person without settings.
func git(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_COMMITTER_DATE=1700000000 +0000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestCheckout releases what is committed, at its time, under a tag that is free or its own.
func TestCheckout(t *testing.T) {
	t.Chdir(t.TempDir())
	if value, set := os.LookupEnv("SOURCE_DATE_EPOCH"); set {
		t.Setenv("SOURCE_DATE_EPOCH", value) // Puts it back at the end.
		if err := os.Unsetenv("SOURCE_DATE_EPOCH"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := checkout(t.Context(), "v1.0.0", false); err == nil ||
		!strings.HasPrefix(err.Error(), "a release is made from a git checkout, and this is none: ") {
		t.Errorf("no checkout: %v", err)
	}
	git(t, "init", "-q")
	write(t, "file", "one")
	git(t, "add", "file")
	git(t, "commit", "-q", "-m", "one")
	commit := git(t, "rev-parse", "HEAD")
	s, err := checkout(t.Context(), "v1.0.0", false)
	if err != nil || s.commit != commit || s.at.Unix() != 1700000000 || s.number() != "1.0.0" {
		t.Errorf("%+v, %v", s, err)
	}
	git(t, "tag", "v1.0.0")
	git(t, "tag", "-a", "-m", "annotated", "v1.0.1")
	write(t, "file", "two")
	if _, err := checkout(t.Context(), "v1.0.1", false); err == nil ||
		err.Error() != "1 files differ from the commit, which a release must not: commit them, or try it with "+
			"ALLOW_DIRTY=1" {
		t.Errorf("changed: %v", err)
	}
	for _, version := range []string{"v1.0.0", "v1.0.1"} {
		if _, err := checkout(t.Context(), version, true); err != nil {
			t.Errorf("%s changed, and it may be: %v", version, err)
		}
	}
	git(t, "commit", "-q", "-a", "-m", "two")
	for _, version := range []string{"v1.0.0", "v1.0.1"} {
		if _, err := checkout(t.Context(), version, false); err == nil ||
			!strings.Contains(err.Error(), "its tag is at another commit") {
			t.Errorf("%s is taken: %v", version, err)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err := checkout(t.Context(), "v1.1.0", false); err == nil ||
		err.Error() != `SOURCE_DATE_EPOCH "yesterday": seconds since 1970 are accepted` {
		t.Errorf("a wrong time: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTarball writes the same files of different places and ages twice.
func TestTarball(t *testing.T) {
	r := &release{source: source{at: time.Unix(1700000000, 0)}}
	var made []string
	for range 2 {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "program"), "text")
		if err := os.Chtimes(filepath.Join(dir, "program"), time.Time{},
			time.Now().Add(-time.Hour*time.Duration(1+len(made)))); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "x.tar.gz")
		if err := r.tarball(path, []layer.File{
			layer.Text("/x/share/a", 0o644, "a"),
			layer.Copy("/x/bin/program", 0o755, filepath.Join(dir, "program")),
		}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, string(text))
	}
	if made[0] != made[1] {
		t.Error("two tarballs of the same files differ")
	}
	z, err := gzip.NewReader(strings.NewReader(made[0]))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for a := tar.NewReader(z); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(r.at) || h.Uid != 0 {
			t.Errorf("%s is of %v, %d's", h.Name, h.ModTime, h.Uid)
		}
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "x/ x/bin/ x/bin/program x/share/ x/share/a" {
		t.Error(got)
	}
}

// TestChecksums has sha256sum check the file, and find a byte that changed.
func TestChecksums(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "one")
	write(t, filepath.Join(dir, "b b"), "two")
	if err := writeChecksums(dir); err != nil {
		t.Fatal(err)
	}
	check := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), "sha256sum", "-c", checksums)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil || out != "a: OK\nb b: OK\n" {
		t.Errorf("%s, %v", out, err)
	}
	write(t, filepath.Join(dir, "a"), "onf")
	if out, err := check(); err == nil || !strings.HasPrefix(out, "a: FAILED\nb b: OK\n") {
		t.Errorf("%s, %v", out, err)
	}
}

// TestPortable removes what depends on the machine and the day from a bill of materials, and nothing else.
func TestPortable(t *testing.T) {
	got, err := portable([]byte(`{"version": 1, "metadata": {"component": {"evidence": {}, "name": "m"}, "tools": [{"name": "t", "hashes": [{"alg": "MD5"}]}]},
		"components": [{"name": "a<b", "hashes": [{"alg": "SHA-256"}]}]}`))
	want := `{
  "components": [
    {
      "hashes": [
        {
          "alg": "SHA-256"
        }
      ],
      "name": "a<b"
    }
  ],
  "metadata": {
    "component": {
      "licenses": [
        {
          "license": {
            "id": "Apache-2.0"
          }
        }
      ],
      "name": "m"
    },
    "tools": [
      {
        "name": "t"
      }
    ]
  },
  "version": 1
}
`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}
