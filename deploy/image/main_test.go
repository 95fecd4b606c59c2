package main

import (
	"os"
	"strings"
	"testing"

	"millrace.io/millrace/deploy/image/build"
)

func TestParse(t *testing.T) {
	c, err := parse([]string{"-platforms", "linux/arm64,linux/amd64", "-tag", "example.org/m:1"})
	if err != nil || strings.Join(c.architectures, " ") != "arm64 amd64" || c.tag != "example.org/m:1" {
		t.Errorf("%+v, %v", c, err)
	}
	for args, want := range map[string]string{
		"-platforms linux/riscv64": `-platforms "linux/riscv64": linux/amd64 and linux/arm64 are built`,
		"-only gateway":            `-only "gateway": there are millrace and millrace-keeper`,
		"more":                     `argument "more": there are only flags`,
	} {
		if _, err := parse(strings.Fields(args)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestDefaultTag compares the image that is built with the one that what is installed pulls.
func TestDefaultTag(t *testing.T) {
	for name, tag := range map[string]string{
		"controller": defaultTag, "node": defaultTag, "agent": defaultTag, "keeper": build.KeeperTag,
	} {
		manifest, err := os.ReadFile("../kustomize/base/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(manifest), "image: "+tag+"\n") {
			t.Errorf("%s runs another image than %s", name, tag)
		}
	}
}
