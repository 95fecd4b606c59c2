package driver

import (
	"fmt"
	"strconv"
	"strings"
)

// mountSettings is what mount flags, the mountOptions of a PersistentVolume, and the group of a pod say.
type mountSettings struct {
	uid, gid uint32
	// fileMode and dirMode are 0 where nothing was said.
	fileMode, dirMode uint32
	// seLinuxContext is "" where nothing was said.
	seLinuxContext string
}

// The permissions where the source tells none, of which a umask takes bits away. No user may write.
const (
	fileBits = 0o444
	dirBits  = 0o555
)

// contextPattern is a label of SELinux: user:role:type, a level and its categories.
var contextPattern = compiled(`^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.,-]+){2,4}$`)

// parseMountOptions reads the mount flags and the group that a volume is for (volume_mount_group), "" for none. A gid
// among the flags is the volume's own, and a pod's group does not change it. An error is a sentence that names the
// option and what is accepted.
func parseMountOptions(flags []string, group string) (mountSettings, error) {
	m := mountSettings{}
	gidGiven := false
	if group != "" {
		gid, ok := parseID(group)
		if !ok {
			return m, fmt.Errorf("volume_mount_group %q is not accepted; accepted is the number of a group", group)
		}
		m.gid = gid
	}
	for _, flag := range flags {
		name, value, _ := strings.Cut(flag, "=")
		ok := false
		switch name {
		case "ro":
			ok = flag == name
		case "uid":
			m.uid, ok = parseID(value)
		case "gid":
			var gid uint32
			gid, ok = parseID(value)
			if ok && gidGiven && gid != m.gid {
				return m, fmt.Errorf("mount option %q contradicts another gid, which is %d", flag, m.gid)
			}
			m.gid, gidGiven = gid, true
		case "umask":
			var mask uint32
			mask, ok = parseMode(value)
			m.fileMode, m.dirMode = masked(fileBits, mask), masked(dirBits, mask)
		case "context":
			m.seLinuxContext = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
			ok = contextPattern().MatchString(m.seLinuxContext)
		}
		if !ok {
			return m, fmt.Errorf("mount option %q is not accepted; accepted are ro, uid=NUMBER, gid=NUMBER, "+
				"umask=OCTAL, context=LABEL", flag)
		}
	}
	if m.fileMode == noBits || m.dirMode == noBits {
		return m, fmt.Errorf("mount options %q leave nobody a permission; accepted is a umask such as 0027", flags)
	}
	return m, nil
}

// noBits marks that a umask left no permission, which 0 cannot say.
const noBits = 1 << 16

// masked is what the mask leaves of the bits.
func masked(bits, mask uint32) uint32 {
	if left := bits &^ mask; left != 0 {
		return left
	}
	return noBits
}

// parseID reads the number of a user or group.
func parseID(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 10, 32)
	// The highest number stands for no user at all (chown(2)).
	return uint32(v), err == nil && v != 1<<32-1
}
