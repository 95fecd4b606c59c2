package masters

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/sanity/fakemaster"
)

// sourcesOf are "/path=source" words of the mounts that a master has.
func sourcesOf(t *testing.T, m *fakemaster.Master) string {
	t.Helper()
	table, err := connected(t, m).MountTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for path, mount := range table {
		if path != "/" {
			words = append(words, path+"="+mount.GetUfsUri())
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// TestRepair has a master's mounts become those that are wanted, whatever it has, by no more changes than that takes.
// Where all is as it is to be it asks for none.
func TestRepair(t *testing.T) {
	for name, tc := range map[string]struct {
		had, wanted, did, has string
	}{
		"nothing":   {"", "", "", ""},
		"a new one": {"", "/a=s3://a", "mount /a", "/a=s3://a"},
		"one inside of directories": {
			"", "/x/y/a=s3://a", "note /, mkdir /x, note /, mkdir /x/y, mount /x/y/a", "/x/y/a=s3://a",
		},
		"other options":          {"/a=s3://a", "/a=s3://a!", "update /a", "/a=s3://a"},
		"another source":         {"/a=s3://a", "/a=s3://b", "note /, unmount /a, mount /a", "/a=s3://b"},
		"one goes":               {"/a=s3://a /b=s3://b", "/b=s3://b", "note /, unmount /a", "/b=s3://b"},
		"one made by hand stays": {"/mine", "/a=s3://a", "mount /a", "/a=s3://a /mine="},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t)
			for _, had := range mountsOf(tc.had) {
				m.Mounted(had.Path, had.Source, had.Properties)
			}
			conn, wanted := connected(t, m), mountsOf(tc.wanted)
			if err := repair(t.Context(), conn, wanted); err != nil {
				t.Fatal(err)
			}
			if did := strings.Join(m.Did(), ", "); did != tc.did {
				t.Errorf("asked for were %q, want %q", did, tc.did)
			}
			if has := sourcesOf(t, m); has != tc.has {
				t.Errorf("it has %q, want %q", has, tc.has)
			}
			if err := repair(t.Context(), conn, wanted); err != nil {
				t.Error(err)
			}
			if did := m.Did(); len(did) > 0 {
				t.Errorf("asked for were %q although all is as it is to be", did)
			}
		})
	}
}

// TestRefusedMount names each mount that a master refuses, and has it hold up no other.
func TestRefusedMount(t *testing.T) {
	for name, tc := range map[string]struct {
		call, path string
		said       error
		says       []string
		has        string
	}{
		"a new one": {
			"mount", "/b", status.Error(codes.PermissionDenied, "no"),
			[]string{"the mount /b: ", "no"},
			"/a=s3://a /c=s3://old",
		},
		"one that its image cannot read": {
			"mount", "/b", status.Error(codes.Internal, "No Under File System Factory found for: s3://b"),
			[]string{"the mount /b: ", "no module for s3://", "spec.alluxioVersion"},
			"/a=s3://a /c=s3://old",
		},
		"one with other options": {
			"update", "/c", status.Error(codes.Internal, "busy"),
			[]string{"the mount /c: ", "busy"},
			"/a=s3://a /b=s3://b /c=s3://old",
		},
		"one that goes": {
			"unmount", "/gone", status.Error(codes.Internal, "busy"),
			[]string{"the mount /gone: ", "busy"},
			"/a=s3://a /b=s3://b /c=s3://old /gone=s3://g",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t)
			had := mountsOf("/c=s3://old")
			if tc.call == "unmount" {
				had = append(had, mountsOf("/gone=s3://g")...)
			}
			for _, h := range had {
				m.Mounted(h.Path, h.Source, h.Properties)
			}
			m.Refuse(func(call, path string) error {
				if call == tc.call && path == tc.path {
					return tc.said
				}
				return nil
			})
			err := repair(t.Context(), connected(t, m), mountsOf("/a=s3://a /b=s3://b /c=s3://old!"))
			if err == nil {
				t.Fatal("it is no error")
			}
			for _, text := range tc.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			}
			if has := sourcesOf(t, m); has != tc.has {
				t.Errorf("it has %q, want %q", has, tc.has)
			}
		})
	}
}

// TestNothingIsWrittenToSources refuses a mount inside of another one whose source has no such directory, and says what
// to do.
func TestNothingIsWrittenToSources(t *testing.T) {
	m := newMaster(t)
	err := repair(t.Context(), connected(t, m), mountsOf("/a=s3://a /a/deep/b=s3://b"))
	if err == nil || !strings.Contains(err.Error(), "the mount /a/deep/b: ") ||
		!strings.Contains(err.Error(), "the source of the mount /a has no directory /deep") {
		t.Error(err)
	}
	if did := strings.Join(m.Did(), ", "); did != "mount /a" {
		t.Errorf("asked for were %q", did)
	}
}

// TestPin pins what is not pinned yet, and lets go of what is, each once.
func TestPin(t *testing.T) {
	m := newMaster(t)
	conn, mounts := connected(t, m), mountsOf("/a=s3://a /b=s3://b")
	if err := repair(t.Context(), conn, mounts); err != nil {
		t.Fatal(err)
	}
	m.Did()
	for i, tc := range []struct {
		pinned bool
		did    string
	}{{false, ""}, {true, "pin /a, pin /b"}, {true, ""}, {false, "unpin /a, unpin /b"}} {
		if err := pin(t.Context(), conn, mounts, tc.pinned); err != nil {
			t.Fatal(err)
		}
		if did := strings.Join(m.Did(), ", "); did != tc.did {
			t.Errorf("the %d. time asked for were %q, want %q", i+1, did, tc.did)
		}
	}
	err := pin(t.Context(), conn, mountsOf("/none=s3://n"), true)
	if err == nil || !strings.Contains(err.Error(), "data.pin of the mount /none") {
		t.Errorf("a mount that is not there: %v", err)
	}
}
