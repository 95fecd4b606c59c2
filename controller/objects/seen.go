package objects

import (
	"fmt"
	"path"
	"strings"
)

// unseen says which tiers the agents of nodes do not see, and what mends that, "" where they see all, or where none
// said what they see. What is cached there is read from a worker by network, also on the worker's own node.
func (b *builder) unseen() string {
	if len(b.Settings.TierDirs) == 0 {
		return ""
	}
	var parts, missing []string
	for i := range b.tiers {
		t := &b.tiers[i]
		field := b.levelField(t)
		if t.emptyDir {
			parts = append(parts, field+" is in the pods' own directories (volumeType emptyDir; hostPath is seen)")
			continue
		}
		for _, d := range t.dirs {
			// Without the Dataset's own part.
			dir := path.Dir(path.Dir(d.path))
			if !within(b.Settings.TierDirs, dir) {
				parts = append(parts, fmt.Sprintf("%s is in %s", field, dir))
				missing = append(missing, dir)
			}
		}
	}
	if len(parts) == 0 {
		return ""
	}
	text := "agents do not open these tiers: " + strings.Join(parts, ", ") +
		"; a pod beside a worker reads what is cached there by network, many times slower than from the file"
	if len(missing) > 0 {
		text += "; the value tierDirs of the chart mends it: add " + strings.Join(missing, ", ")
	}
	return text
}

// levelField is the field of the spec that a tier was read from.
func (b *builder) levelField(t *tier) string {
	for i := range b.spec.TieredStore.Levels {
		if &b.spec.TieredStore.Levels[i] == t.level {
			return fmt.Sprintf("spec.tieredstore.levels[%d]", i)
		}
	}
	return "spec.tieredstore"
}

// within reports whether a directory is one of dirs, or below one.
func within(dirs []string, dir string) bool {
	for _, d := range dirs {
		if d = path.Clean(d); dir == d || strings.HasPrefix(dir, strings.TrimSuffix(d, "/")+"/") {
			return true
		}
	}
	return false
}
