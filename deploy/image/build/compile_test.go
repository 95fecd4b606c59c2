package build

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"millrace.io/millrace/deploy/heartbeat"
)

func TestParseEpoch(t *testing.T) {
	if at, err := ParseEpoch("1700000000"); err != nil || at.Format(time.RFC3339) != "2023-11-14T22:13:20Z" {
		t.Errorf("%v, %v", at, err)
	}
	for _, text := range []string{"", "-1", "yesterday", "1.5"} {
		if _, err := ParseEpoch(text); err == nil || !strings.Contains(err.Error(), "seconds since 1970 are accepted") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestStamp(t *testing.T) {
	s := Stamp{Version: "v1.2.3", Revision: "abc", At: time.Unix(1700000000, 0)}
	const linked = " -X millrace.io/millrace/cmd/commandline."
	want := "-s -w" + linked + "Version=v1.2.3" + linked + "Revision=abc" + linked + "Time=2023-11-14T22:13:20Z"
	if got := s.flags(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := (Stamp{}).flags(); got != "-s -w" {
		t.Error(got)
	}
}

// TestCompile compiles the smallest of the programs, and tells why another cannot be.
func TestCompile(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a program, which make unit has no time for; make test does")
	}
	dir := t.TempDir()
	var part heartbeat.Part
	if err := Compile(t.Context(), dir, runtime.GOARCH, Stamp{}, &part, "millrace-keeper"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "millrace-keeper")); err != nil {
		t.Error(err)
	}
	err := Compile(t.Context(), dir, runtime.GOARCH, Stamp{}, &part, "millrace-none")
	if err == nil || !strings.Contains(err.Error(), "millrace-none") {
		t.Error(err)
	}
}

// TestCreated has an image bear the time of its commit, and 1970 where none is known.
func TestCreated(t *testing.T) {
	dir := t.TempDir()
	for _, program := range Millrace.Programs {
		if err := os.WriteFile(filepath.Join(dir, program), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(1700000000, 0)
	for created, want := range map[time.Time]string{at: "2023-11-14T22:13:20Z", {}: "1970-01-01T00:00:00Z"} {
		var digests []v1.Hash
		for range 2 {
			image, err := Image("amd64", Parts{Kind: Millrace, Programs: dir, Tag: "a/b:1", At: created})
			if err != nil {
				t.Fatal(err)
			}
			config, err := image.ConfigFile()
			if err != nil || config.Created.Format(time.RFC3339) != want {
				t.Errorf("created at %v, not %s, %v", config.Created, want, err)
			}
			digest, err := image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, digest)
		}
		if digests[0] != digests[1] {
			t.Errorf("the same image twice is %v", digests)
		}
	}
}
