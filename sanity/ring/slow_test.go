package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSlowAreThere holds the Makefile's list of what the quick ring leaves out to packages that are there and have
// tests: a package that moves must not slip into the quick ring, nor a name stay that leaves out another.
func TestSlowAreThere(t *testing.T) {
	text, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^SLOW := (.+)$`).FindSubmatch(text)
	if line == nil {
		t.Fatal("the Makefile has no line SLOW := ...")
	}
	seen := map[string]bool{}
	for name := range strings.SplitSeq(string(line[1]), "|") {
		if seen[name] {
			t.Errorf("%s is in SLOW twice", name)
		}
		seen[name] = true
		tests, err := filepath.Glob(filepath.Join("..", name, "*_test.go"))
		if err != nil || len(tests) == 0 {
			t.Errorf("SLOW leaves out sanity/%s, which has no tests: %v", name, err)
		}
	}
	// What starts nodes, a control plane or a JVM for its tests has nothing for the quick ring.
	for _, name := range []string{"controller", "e2e", "kube", "kubenodes"} {
		if !seen[name] {
			t.Errorf("sanity/%s is not in SLOW", name)
		}
	}
}
