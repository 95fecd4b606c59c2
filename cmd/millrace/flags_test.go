package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestFlagsMayFollowArguments(t *testing.T) {
	for _, args := range [][]string{
		{"--quota", "1Gi", "--background", "src", "dir"},
		{"src", "--quota", "1Gi", "dir", "--background"},
		{"src", "dir", "--background", "--quota=1Gi"},
		{"--background", "-quota", "1Gi", "--", "src", "dir"},
	} {
		c, err := parseMount(args, io.Discard)
		if err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		if c.source != "src" || c.dir != "dir" || !c.background || !slices.Equal(c.quotas, []int64{1 << 30}) {
			t.Errorf("%q: %+v", args, c)
		}
	}
	c, err := parseMount([]string{"src", "--", "--dir"}, io.Discard)
	if err != nil || c.dir != "--dir" {
		t.Errorf("a directory that begins with dashes: %+v, %v", c, err)
	}
}

func TestTiersAndQuotasGoTogether(t *testing.T) {
	c, err := parseMount([]string{"s", "d", "--tier-dir", "/a", "--quota", "1Gi", "--tier-dir", "/b", "--quota", "2Gi"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	levels, err := c.levels()
	if err != nil || len(levels) != 2 || levels[0].Dir != "/a" || levels[0].Quota != 1<<30 || levels[1].Quota != 2<<30 || levels[1].Low != 0.7 {
		t.Errorf("%+v, %v", levels, err)
	}
	c, err = parseMount([]string{"s", "d", "--tier-dir", t.TempDir() + "/not/yet"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if levels, err = c.levels(); err != nil || levels[0].Quota <= 0 || levels[0].Quota > defaultQuota {
		t.Errorf("default quota: %+v, %v", levels, err)
	}
}

func TestOptionsRepeatAndKeepEqualSigns(t *testing.T) {
	c, err := parseMount([]string{"s", "d", "--option", "endpoint=http://h/?a=b", "--option", "region="}, io.Discard)
	if err != nil || c.options["endpoint"] != "http://h/?a=b" || len(c.options) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = parseMount([]string{"s", "d", "--option", "s3cr3t"}, io.Discard)
	if err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("what could be a secret is repeated: %v", err)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	for _, c := range commands() {
		if slices.Contains([]string{"controller", "gateway"}, c.name) {
			continue // They are programs of their own, which this process would become: TestProgramsBeside.
		}
		for _, h := range []string{"--help", "-h"} {
			var out strings.Builder
			if err := dispatch([]string{c.name, h}, &out); err != nil {
				t.Errorf("%s %s: %v", c.name, h, err)
			}
			if !strings.Contains(out.String(), "Usage: millrace") {
				t.Errorf("%s %s prints %q", c.name, h, out.String())
			}
			for line := range strings.Lines(out.String()) {
				if len(line) > 161 {
					t.Errorf("%s: line of %d columns: %s", c.name, len(line), line)
				}
			}
		}
	}
}
