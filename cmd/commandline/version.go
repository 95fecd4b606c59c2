package commandline

import "runtime/debug"

// Version is the version that orchestrators and servers show; never "".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case !ok:
		return "unknown"
	case info.Main.Version == "":
		return "(devel)"
	}
	return info.Main.Version
}
