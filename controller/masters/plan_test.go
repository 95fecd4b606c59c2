package masters

import (
	"slices"
	"strings"
	"testing"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/controller/objects"
)

// mountsOf reads "/path=source" a word; one whose source has a "!" is another only by its options. In a table a mount
// without "=" was made by hand.
func mountsOf(words string) []rpc.Mount {
	var mounts []rpc.Mount
	for word := range strings.FieldsSeq(words) {
		path, source, ours := strings.Cut(word, "=")
		m := rpc.Mount{Path: path, Source: strings.TrimRight(source, "!"), Properties: map[string]string{}}
		if ours {
			m.Properties[objects.HashOption] = source
		}
		mounts = append(mounts, m)
	}
	return mounts
}

func tableOf(words string) map[string]*wire.MountPointInfo {
	table := map[string]*wire.MountPointInfo{"/": {UfsUri: new(string)}}
	for _, m := range mountsOf(words) {
		table[m.Path] = &wire.MountPointInfo{UfsUri: &m.Source, Properties: m.Properties}
	}
	return table
}

func pathsOf(mounts []rpc.Mount) string {
	paths := make([]string, len(mounts))
	for i := range mounts {
		paths[i] = mounts[i].Path
	}
	return strings.Join(paths, " ")
}

// TestPlanned has mounts come, change and go, and those that are inside of others with them.
func TestPlanned(t *testing.T) {
	for _, tc := range []struct{ name, table, wanted, unmount, update, mount, stay string }{
		{"nothing", "", "", "", "", "", ""},
		{"new ones, the outer first", "", "/deep/x=a /deep=b", "", "", "/deep /deep/x", ""},
		{"all as it is", "/deep=b /deep/x=a", "/deep=b /deep/x=a", "", "", "", "/deep /deep/x"},
		{"other options", "/deep/x=a", "/deep/x=a!", "", "/deep/x", "", "/deep/x"},
		{"another source", "/deep/x=a", "/deep/x=b", "/deep/x", "", "/deep/x", ""},
		{"one of two goes", "/deep/x=a /deep/y=b", "/deep/y=b", "/deep/x", "", "", "/deep/y"},
		{
			"an outer one comes", "/deep/x=a /deeper=c", "/deep/x=a /deep=b /deeper=c", "/deep/x", "", "/deep /deep/x",
			"/deeper",
		},
		{"an outer one goes", "/deep=b /deep/x=a", "/deep/x=a", "/deep/x /deep", "", "/deep/x", ""},
		{"an outer one is another", "/deep=b /deep/x=a", "/deep=c /deep/x=a", "/deep/x /deep", "", "/deep /deep/x", ""},
		{"an outer one has other options", "/deep=b /deep/x=a", "/deep=b! /deep/x=a", "", "/deep", "", "/deep /deep/x"},
		{
			"the inner one has other options too", "/deep=b /deep/x=a", "/deep=c /deep/x=a!", "/deep/x /deep", "",
			"/deep /deep/x", "",
		},
		{
			"far inside", "/deep=b /deep/x/y/z=a", "/deep=c /deep/x/y/z=a", "/deep/x/y/z /deep", "", "/deep /deep/x/y/z",
			"",
		},
		{"the inner one goes", "/deep=b /deep/x=a", "/deep=b", "/deep/x", "", "", "/deep"},
		{"one made by hand", "/mine /deep/mine", "/deep/x=a", "", "", "/deep/x", "/deep/mine /mine"},
		{"one made by hand where one is wanted", "/deep", "/deep=a", "/deep", "", "/deep", ""},
		{"one made by hand inside of one that goes", "/deep=b /deep/mine", "", "/deep", "", "", "/deep/mine"},
		{"names that begin alike", "/deep=b /deepest/x=a", "/deepest/x=a", "/deep", "", "", "/deepest/x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := planned(tableOf(tc.table), mountsOf(tc.wanted))
			for _, part := range []struct{ what, got, want string }{
				{"unmounted are", strings.Join(p.unmount, " "), tc.unmount},
				{"updated are", pathsOf(p.update), tc.update},
				{"mounted are", pathsOf(p.mount), tc.mount},
				{"staying are", strings.Join(p.stay, " "), tc.stay},
			} {
				if part.got != part.want {
					t.Errorf("%s %q, want %q", part.what, part.got, part.want)
				}
			}
		})
	}
}

// TestLeftovers has directories that were made for mounts be removed when none needs them, and never what belongs to a
// source.
func TestLeftovers(t *testing.T) {
	for _, tc := range []struct{ name, made, table, wanted, left string }{
		{"of a mount that is there", "/a /a/b", "/a/b/c=x", "/a/b/c=x", ""},
		{"of one that comes", "/a /a/b", "", "/a/b/c=x", ""},
		{"of none", "/a /a/b", "", "", "/a/b /a"},
		{"of one that goes", "/a /a/b", "/a/b/c=x", "", "/a/b /a"},
		{"one of two goes", "/a /a/b /a/c", "/a/b/x=x /a/c/x=y", "/a/c/x=y", "/a/b"},
		{"one made by hand", "/a", "/a/mine", "", ""},
		{"where a mount comes", "/a /a/b", "/a/b/c=x", "/a=y /a/b/c=x", "/a/b /a"},
		{"where a mount is, in its source", "/a /a/b", "/a=y", "/a=y", ""},
		{"where one made by hand is, in its source", "/a /a/b", "/a", "", ""},
		{"where a mount goes", "/a /a/b", "/a=y", "", "/a/b /a"},
		{"names that begin alike", "/a", "/ab/c=x", "/ab/c=x", "/a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := planned(tableOf(tc.table), mountsOf(tc.wanted))
			if got := strings.Join(p.leftovers(strings.Fields(tc.made)), " "); got != tc.left {
				t.Errorf("left over are %q, want %q", got, tc.left)
			}
		})
	}
}

// TestMissing has a mount wait for the one around it, when that could not be made.
func TestMissing(t *testing.T) {
	p := planned(tableOf(""), mountsOf("/deep=b /deep/x=a /deeper=c"))
	if outer, missing := p.missing("/deep/x", nil); !missing || outer != "/deep" {
		t.Errorf("it misses %q, %t", outer, missing)
	}
	if outer, missing := p.missing("/deep/x", []string{"/deep"}); missing {
		t.Errorf("it misses %q", outer)
	}
	if outer, missing := p.missing("/deeper", nil); missing {
		t.Errorf("it misses %q", outer)
	}
}

// TestRemains has a mount that cannot be taken away be one that stays, and is not made.
func TestRemains(t *testing.T) {
	p := planned(tableOf("/deep=b"), mountsOf("/deep=c /more=d"))
	p.remains("/deep")
	if got := pathsOf(p.mount); got != "/more" || !slices.Contains(p.stay, "/deep") {
		t.Errorf("mounted are %q, staying %v", got, p.stay)
	}
}

// TestAbove has the directories that a path is in.
func TestAbove(t *testing.T) {
	for path, want := range map[string]string{"/a": "", "/a/b": "/a", "/a/b/c": "/a /a/b"} {
		if got := strings.Join(above(path), " "); got != want {
			t.Errorf("above %s are %q, want %q", path, got, want)
		}
	}
}

// TestNotedIn has a note be read that another program wrote: what is no directory below the root is left out, and it is
// bounded.
func TestNotedIn(t *testing.T) {
	got := notedIn([]byte("/a\n\n/\nb\n/a/b"))
	if !slices.Equal(got, []string{"/a", "/a/b"}) {
		t.Errorf("noted are %q", got)
	}
	if n := len(notedIn([]byte(strings.Repeat("/a\n", 2*mostParents)))); n != mostParents {
		t.Errorf("noted are %d", n)
	}
}
