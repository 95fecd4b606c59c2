package commandline

import "runtime/debug"

// Version and Revision are those of a release, as the linker writes them:
//
//	-ldflags "-X millrace.io/millrace/cmd/commandline.Version=v0.2.0 -X millrace.io/millrace/cmd/commandline.Revision=COMMIT"
//
// Where a build has none, the version is "dev" and the commit is the one that the toolchain wrote into the program.
var (
	Version  = unreleased
	Revision string
)

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
	return buildOf(info, Version, Revision)
}

// buildOf joins what the toolchain and the linker wrote into a program.
func buildOf(info *debug.BuildInfo, version, revision string) Build {
	b := Build{Version: version, Revision: revision, Go: info.GoVersion, Modules: map[string]string{}}
	if main := info.Main.Version; version == unreleased && main != "" && main != "(devel)" {
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
