package commandline

import "runtime/debug"

// Version is that of a release, as the linker writes it; where a build has none it is "dev":
//
//	-ldflags "-X millrace.io/millrace/cmd/commandline.Version=v0.2.0 -X ...Revision=COMMIT -X ...Time=RFC3339"
var Version = unreleased

// Revision is the commit, where the toolchain wrote none into the program.
var Revision string

// Time is that of the commit, where the toolchain wrote none.
var Time string

const unreleased = "dev"

// Build is what a program was built from.
type Build struct {
	// Version is never "".
	Version string
	// Revision is the commit, "" where it is not known, and Time its time. Modified says that files were not as committed.
	Revision, Time string
	Modified       bool
	// Go is the version of the toolchain.
	Go string
	// Modules are the versions of the modules in it, by their paths.
	Modules map[string]string
}

// ReadBuild is what this program was built from.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info, Build{Version: Version, Revision: Revision, Time: Time})
}

// Line is what a program shows of its build, in one line.
func (b Build) Line(program string) string {
	revision := "revision unknown"
	if b.Revision != "" {
		revision = "revision " + b.Revision
	}
	if b.Time != "" {
		revision += " of " + b.Time
	}
	if b.Modified {
		revision += ", modified"
	}
	return program + " " + b.Version + " (" + revision + ") " + b.Go
}

// buildOf joins what the toolchain wrote into a program with what the linker did.
func buildOf(info *debug.BuildInfo, linked Build) Build {
	b := linked
	b.Go, b.Modules = info.GoVersion, map[string]string{}
	if main := info.Main.Version; b.Version == unreleased && main != "" && main != "(devel)" {
		b.Version = main
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	for _, d := range info.Deps {
		b.Modules[d.Path] = d.Version
	}
	return b
}
