package commandline

import (
	"runtime/debug"
	"testing"
)

func TestBuildOf(t *testing.T) {
	stamped := &debug.BuildInfo{
		GoVersion: "go1.2", Main: debug.Module{Version: "v0.0.0-1"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abc"},
			{Key: "vcs.modified", Value: "true"},
			{Key: "vcs.time", Value: "t"},
		},
		Deps: []*debug.Module{{Path: "m", Version: "v2.1"}},
	}
	plain := &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}
	for _, c := range []struct {
		info                           *debug.BuildInfo
		version, revision              string
		wantVersion, wantRevision, why string
	}{
		{stamped, "dev", "", "v0.0.0-1", "abc", "nothing from the linker"},
		{stamped, "v1.2.3", "def", "v1.2.3", "abc", "a release that the toolchain has stamped"},
		{plain, "v1.2.3", "def", "v1.2.3", "def", "a release that it has not"},
		{plain, "dev", "", "dev", "", "nothing is known"},
		{&debug.BuildInfo{}, "dev", "", "dev", "", "no information"},
	} {
		b := buildOf(c.info, Build{Version: c.version, Revision: c.revision})
		if b.Version != c.wantVersion || b.Revision != c.wantRevision {
			t.Errorf("%s: %+v", c.why, b)
		}
	}
	b := buildOf(stamped, Build{Version: "dev"})
	if b.Go != "go1.2" || !b.Modified || b.Time != "t" || b.Modules["m"] != "v2.1" {
		t.Errorf("%+v", b)
	}
	b = buildOf(plain, Build{Version: "v1.2.3", Revision: "def", Time: "u"})
	if b.Time != "u" || b.Line("p") != "p v1.2.3 (revision def of u) " {
		t.Errorf("%+v, %q", b, b.Line("p"))
	}
}
