package machines

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hierarchy is a mounted cgroup hierarchy, and where this process is in it.
type hierarchy struct {
	mountpoint string
	fstype     string // cgroup or cgroup2
	options    string // what mounts it again
	home       string // the cgroup from which the process came
}

// hierarchies are those that are mounted here.
func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if f[2] != "cgroup" && f[2] != "cgroup2" {
			continue
		}
		controllers := strings.Split(f[3], ",")
		controllers = slices.DeleteFunc(controllers, func(o string) bool {
			general := []string{
				"rw", "ro", "relatime", "nosuid", "nodev", "noexec", "xattr", "clone_children",
				"nsdelegate",
			}
			return slices.Contains(general, o) || strings.HasPrefix(o, "release_agent=")
		})
		h := hierarchy{mountpoint: f[1], fstype: f[2], home: homeIn(string(own), controllers)}
		if f[2] == "cgroup" {
			h.options = strings.Join(controllers, ",")
			if strings.HasPrefix(h.options, "name=") {
				h.options = "none," + h.options
			}
		}
		all = append(all, h)
	}
	return all, nil
}

// homeIn finds the cgroup of the hierarchy with these controllers, in the text of /proc/self/cgroup.
func homeIn(own string, controllers []string) string {
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if f[1] == strings.Join(controllers, ",") {
			return f[2]
		}
	}
	return "/"
}

// enter makes the cgroup name below parent in the hierarchy, and moves this process into it.
func (h hierarchy) enter(parent, name string) error {
	for _, dir := range []string{filepath.Join(h.mountpoint, parent), filepath.Join(h.mountpoint, parent, name)} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// A new cpuset has nothing, and no process may move into it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil || h.fstype != "cgroup" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
				return err
			}
		}
	}
	return h.move(filepath.Join(parent, name))
}

func (h hierarchy) move(to string) error {
	return os.WriteFile(filepath.Join(h.mountpoint, to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// leave moves this process to where it came from, and removes the machine's cgroups, for a while: those of processes
// that were killed this moment are busy until these are gone.
func (h hierarchy) leave(parent, name string) error {
	if err := h.move(h.home); err != nil {
		return err
	}
	root := filepath.Join(h.mountpoint, parent, name)
	for range 50 {
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, d := range dirs {
			_ = os.Remove(d)
		}
		if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
			// The last machine takes the parent with it.
			_ = os.Remove(filepath.Dir(root))
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New(root + " cannot be removed")
}
