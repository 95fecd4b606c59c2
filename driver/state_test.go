package driver

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"millrace.io/millrace/fuse/handover"
)

func TestShelfOutlivesItsProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volumes")
	s, err := openShelf[record](dir)
	if err != nil {
		t.Fatal(err)
	}
	want := record{
		Phase: phaseStaged, SELinuxContext: "u:r:t", Minor: 52, Ephemeral: true,
		Volume:  handover.Volume{ID: "a/../b", Dir: "/staging", Source: "s3://b", Secrets: map[string]string{"k": "v"}},
		Targets: []target{{Path: "/t1", ReadOnly: true}, {Path: "/t2", Alone: true}},
	}
	for _, id := range []string{"a/../b", "gone"} {
		if err := s.put(id, want); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.drop("gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.drop("never there"); err != nil {
		t.Error(err)
	}
	// What a killed process leaves.
	if err := os.WriteFile(filepath.Join(dir, tempPrefix+"1"), []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openShelf[record](dir)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := again.get("a/../b")
	if !ok || !reflect.DeepEqual(got, want) || len(again.ids()) != 1 {
		t.Errorf("%#v %v %v", got, ok, again.ids())
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("%d files", len(entries))
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, entries[0].Name()): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, st.Mode(), err)
		}
	}
}

// TestShelfPutsAsideWhatItCannotRead: the file keeps its content under another name, is told of at every start, and
// the others are read.
func TestShelfPutsAsideWhatItCannotRead(t *testing.T) {
	for name, text := range map[string]string{
		"half.json":                `{"id":"a","item":{"pha`,
		fileName("a") + ".json":    `{"id":"b","item":{}}`,
		fileName("") + ".json":     `{"id":"","item":{}}`,
		"a name of no volume.json": `{"id":"a","item":{}}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		good := filepath.Join(dir, fileName("good")+".json")
		if err := os.WriteFile(good, []byte(`{"id":"good","item":{"phase":"staged"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s, err := openShelf[record](dir)
			if err != nil || len(s.damaged) != 1 || filepath.Base(s.damaged[0]) != name+damagedSuffix {
				t.Fatalf("%s: %+v, %v", name, s, err)
			}
			if kept, err := os.ReadFile(s.damaged[0]); err != nil || string(kept) != text {
				t.Errorf("%s: %q, %v", name, kept, err)
			}
			if _, ok := s.get("good"); !ok || len(s.ids()) != 1 {
				t.Errorf("%s: %v are read", name, s.ids())
			}
		}
	}
}
