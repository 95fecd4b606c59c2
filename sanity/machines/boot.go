package machines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
)

// boot is the machine's first process.
func boot(c Config) error {
	groups, err := hierarchies()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"the host's mounts", func() error { return dropMounts(c.Work) }},
		{"mounts", func() error { return mountSystem(c) }},
		{"cgroups", func() error { return mountCgroups(groups) }},
		{"the disk", func() error { return mountDisk(c) }},
		{"kernel settings", mountSettings},
		{"the host name", func() error { return unix.Sethostname([]byte(c.Name)) }},
		// What a container mounts for its node is seen there, and by other containers.
		{"sharing of mounts", func() error { return unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "") }},
		{"the network", func() error { return bringUp(c) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return serve(os.NewFile(controlFD, "control"))
}

// dropMounts leaves of the host's mounts its root, its devices, and what the work directory lies on.
func dropMounts(work string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	mounts, err := mountpoint.Table(nil)
	if err != nil {
		return err
	}
	slices.Reverse(mounts)
	for _, m := range mounts {
		at := m.MountPoint
		if at == "/" || at == "/dev" || at == "/dev/pts" || strings.HasPrefix(work+"/", at+"/") {
			continue
		}
		// What is below a mount that went away is gone already.
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
	return nil
}

func mountSystem(c Config) error {
	for _, m := range []struct {
		at, fstype, data string
		flags            uintptr
	}{
		{"/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"/run", "tmpfs", "mode=755", 0},
		{"/dev/shm", "tmpfs", fmt.Sprintf("mode=1777,size=%d", c.Shm), 0},
	} {
		if err := unix.Mount(m.fstype, m.at, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("%s: %w", m.at, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/tmp"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// mountCgroups mounts the hierarchies anew: in this namespace their roots are the machine's own cgroups.
func mountCgroups(groups []hierarchy) error {
	const base = "/sys/fs/cgroup"
	if err := unix.Mount("cgroup", base, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, h := range groups {
		if err := os.MkdirAll(h.mountpoint, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(h.fstype, h.mountpoint, h.fstype, 0, h.options); err != nil {
			return fmt.Errorf("%s: %w", h.mountpoint, err)
		}
	}
	return nil
}

// mountDisk puts the machine's own directories and files over the host's.
func mountDisk(c Config) error {
	for _, name := range []string{"lib", "log"} {
		if err := bind(filepath.Join(c.Disk, name), filepath.Join("/var", name)); err != nil {
			return err
		}
	}
	if err := bind(filepath.Join(c.Disk, "srv"), "/srv"); err != nil {
		return err
	}
	for name, text := range map[string]string{"hostname": c.Name + "\n", "hosts": c.Hosts, "resolv.conf": ""} {
		if err := bindFile("/run/"+name, "/etc/"+name, text); err != nil {
			return err
		}
	}
	return nil
}

func bind(from, to string) error {
	if err := os.MkdirAll(from, 0o755); err != nil {
		return err
	}
	return unix.Mount(from, to, "", unix.MS_BIND, "")
}

// bindFile writes a file and puts it over another.
func bindFile(from, to, text string) error {
	if err := os.WriteFile(from, []byte(text), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	return nil
}

// mountSettings gives kubelet files of its own in place of settings of the whole kernel, which it writes.
func mountSettings() error {
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		if err := bindFile("/run/sysctl-"+filepath.Base(name), "/proc/sys/"+name, value+"\n"); err != nil {
			return err
		}
	}
	return nil
}
