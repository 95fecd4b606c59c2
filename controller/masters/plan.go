package masters

import (
	"maps"
	"slices"
	"strings"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/controller/objects"
)

// plan is what brings a mount table to what is wanted.
type plan struct {
	// unmount has inner mounts before those around them, mount the outer ones before those inside them.
	unmount []string
	update  []rpc.Mount
	mount   []rpc.Mount
	// stay are the mounts that are there before and after, those that were made by hand among them.
	stay []string
}

// planned compares a mount table with what is wanted. A mount that was made by hand, which has no hash, stays,
// unless it is where one is wanted. Alluxio makes and takes away no mount that has another inside: where an outer one
// comes or goes, the inner ones go before and come again.
func planned(table map[string]*wire.MountPointInfo, wanted []rpc.Mount) plan {
	byPath := make(map[string]rpc.Mount, len(wanted))
	for _, m := range wanted {
		byPath[m.Path] = m
	}
	// moving are the paths at which a mount goes or comes.
	moving := map[string]bool{}
	for path := range byPath {
		moving[path] = table[path] == nil
	}
	for path, have := range table {
		want, kept := byPath[path]
		ours := have.GetProperties()[objects.HashOption]
		same := kept && (ours == want.Properties[objects.HashOption] || sameSource(have, want))
		moving[path] = path != "/" && !same && (kept || ours != "")
	}
	var p plan
	for path, have := range table {
		if path == "/" {
			continue
		}
		want, kept := byPath[path]
		ours := have.GetProperties()[objects.HashOption]
		inMoving := slices.ContainsFunc(above(path), func(dir string) bool { return moving[dir] })
		switch {
		case moving[path], inMoving && (kept || ours != ""):
			p.unmount = append(p.unmount, path)
			continue
		case kept && ours != want.Properties[objects.HashOption]:
			p.update = append(p.update, want)
		}
		p.stay = append(p.stay, path)
		delete(byPath, path)
	}
	slices.Sort(p.unmount)
	slices.Reverse(p.unmount)
	slices.SortFunc(p.update, func(a, b rpc.Mount) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(p.stay)
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		p.mount = append(p.mount, byPath[path])
	}
	return p
}

// remains notes that a mount could not be taken away.
func (p *plan) remains(path string) {
	p.stay = append(p.stay, path)
	p.mount = slices.DeleteFunc(p.mount, func(m rpc.Mount) bool { return m.Path == path })
}

// missing is a mount around a path that was to be made and is not there.
func (p *plan) missing(path string, there []string) (outer string, missing bool) {
	for i := range p.mount {
		if outer := p.mount[i].Path; within(path, outer) && !slices.Contains(there, outer) {
			return outer, true
		}
	}
	return "", false
}

// leftovers are those of the directories that were made for mounts which none needs any more, inner ones first. What is
// inside a mount that stays is not among them: it belongs to that mount's source.
func (p *plan) leftovers(made []string) []string {
	coming := make([]string, 0, len(p.mount))
	for i := range p.mount {
		coming = append(coming, p.mount[i].Path)
	}
	var left []string
	for _, dir := range made {
		at := func(mount string) bool { return mount == dir }
		around := func(mount string) bool { return within(dir, mount) }
		below := func(mount string) bool { return within(mount, dir) }
		switch {
		case slices.ContainsFunc(p.stay, at), slices.ContainsFunc(p.stay, around):
		case slices.ContainsFunc(coming, at), slices.ContainsFunc(coming, around),
			!slices.ContainsFunc(p.stay, below) && !slices.ContainsFunc(coming, below):
			left = append(left, dir)
		}
	}
	slices.Sort(left)
	slices.Reverse(left)
	return left
}

// above are the directories that a path is in, the outermost first, without the root.
func above(path string) []string {
	var dirs []string
	for i, c := range path {
		if c == '/' && i > 0 {
			dirs = append(dirs, path[:i])
		}
	}
	return dirs
}

// within reports whether a path is strictly below a directory that is not the root.
func within(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

// sameSource reports whether only options differ, which leaves what is cached.
func sameSource(have *wire.MountPointInfo, want rpc.Mount) bool {
	return trimSlash(have.GetUfsUri()) == trimSlash(want.Source) && have.GetReadOnly() == want.ReadOnly &&
		have.GetShared() == want.Shared
}

func trimSlash(uri string) string { return strings.TrimRight(uri, "/") }
