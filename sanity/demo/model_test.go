package main

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMapModel(t *testing.T) {
	name := filepath.Join(t.TempDir(), modelName)
	if err := writeModel(name, 4<<20); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mapModel(t.Context(), name)
	if err != nil || m.Sum != sha256.Sum256(data) || m.Bytes != int64(len(data)) || m.Took <= 0 {
		t.Errorf("mapped %+v: %v", m, err)
	}
	data[len(data)-1]++
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := mapModel(t.Context(), name); err != nil || changed.Sum == m.Sum {
		t.Errorf("another last byte has the same sum: %v", err)
	}
}

// TestMapNonsense maps what is no model.
func TestMapNonsense(t *testing.T) {
	for text, want := range map[string]string{
		"short":                              "no header",
		strings.Repeat("\xff", 4096):         "a header of",
		"\x02\x00\x00\x00\x00\x00\x00\x00{]": "the header of a model",
	} {
		name := filepath.Join(t.TempDir(), modelName)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := mapModel(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text[:5], err, want)
		}
	}
	var header bytes.Buffer
	header.WriteString("\x44\x00\x00\x00\x00\x00\x00\x00")
	header.WriteString(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,99999999999999]}}  `)
	if err := touch(t.Context(), header.Bytes()); err == nil ||
		!strings.Contains(err.Error(), "a tensor from 0 to 99999999999999") {
		t.Errorf("a tensor behind the end: %v", err)
	}
}
