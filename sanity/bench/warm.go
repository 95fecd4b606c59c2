package main

import (
	"os"
	"path/filepath"
	"time"
)

// repeats is how often a short read is repeated within a round; the round's value is the median.
const repeats = 3

// warmRead is one case over a cached file.
type warmRead struct {
	name string
	// program is what must be installed, "" for what every machine has.
	program string
	// mode is the millrace mount that is read: passthrough or copy.
	mode string
	// repeats is how often it is measured within a round.
	repeats int
	read    func(b *bench, name string) (float64, error)
}

const (
	passthrough = "passthrough"
	copyReplies = "copy"
)

func warmReads() []warmRead {
	return []warmRead{
		{"warm-seq", "dd", passthrough, repeats, (*bench).readWarm},
		{"warm-seq-copy", "dd", copyReplies, repeats, (*bench).readWarm},
		{"warm-rand4k", "fio", passthrough, 1, (*bench).readRandom},
		{"warm-mmap", "python3", passthrough, repeats, (*bench).readMapped},
	}
}

// measureWarm mounts for each system, reads the file once so that it is cached, and measures each case on
// all of them in turn.
func (b *bench) measureWarm(round int) error {
	name := bigName(0)
	files := map[string]string{native: filepath.Join(b.data, "big", name)}
	for _, mode := range []struct {
		key, system string
		flags       []string
	}{
		{passthrough, millrace, nil},
		{copyReplies, millrace, []string{"--no-passthrough"}},
		{rclone, rclone, nil},
	} {
		if !b.needsWarm(mode.key) {
			continue
		}
		m, err := b.newMount(mode.system, b.bare, "big/", mode.flags...)
		if err != nil {
			b.failed("warm mount", mode.key, err)
			continue
		}
		defer m.close()
		file := filepath.Join(m.dir, name)
		if _, err := b.readCold(file); err != nil {
			b.failed("warm mount", mode.key, err)
			continue
		}
		files[mode.key] = file
	}
	for _, c := range warmReads() {
		if b.cfg.wants(c.name) && b.installed(c.program, c.name) {
			b.measureWarmCase(c, round, pick(files, map[string]string{native: native, millrace: c.mode, rclone: rclone}))
		}
	}
	return nil
}

// needsWarm reports whether a case that was asked for reads the mount.
func (b *bench) needsWarm(key string) bool {
	if key == rclone {
		return b.has(rclone)
	}
	for _, c := range warmReads() {
		if c.mode == key && b.cfg.wants(c.name) {
			return true
		}
	}
	return false
}

// pick are the files by system that are there, of files by key.
func pick(files, keys map[string]string) map[string]string {
	picked := map[string]string{}
	for system, key := range keys {
		if file, ok := files[key]; ok {
			picked[system] = file
		}
	}
	return picked
}

// measureWarmCase measures one case on each system's file, the page cache dropped before each read.
func (b *bench) measureWarmCase(c warmRead, round int, files map[string]string) {
	values := map[string][]float64{}
	var systems []string
	for _, system := range []string{native, millrace, rclone, alluxioFuse} {
		if _, ok := files[system]; ok {
			systems = append(systems, system)
		}
	}
	systems = b.turns(round, systems...)
	for i := range c.repeats {
		for _, system := range systems {
			// One read of theirs takes as long as all of the others.
			if i > 0 && (system == rclone || system == alluxioFuse) {
				continue
			}
			v, err := b.warmOnce(c, system, files[system])
			if err != nil {
				b.failed(c.name, system, err)
				continue
			}
			values[system] = append(values[system], v)
		}
	}
	for _, system := range systems {
		if len(values[system]) > 0 {
			b.keep(c.name, system, median(values[system]))
		}
	}
}

// warmOnce reads a file twice and measures the second time, the page cache dropped before each. The first read
// has the machine give the memory that the second needs: a virtual one takes back what was free for a while, and
// the next to touch it pays.
func (b *bench) warmOnce(c warmRead, system, file string) (float64, error) {
	b.dropCaches()
	if system == native {
		fresh, err := b.freshCopy(c, file)
		if err != nil {
			return 0, err
		}
		return c.read(b, fresh)
	}
	if _, err := c.read(b, file); err != nil {
		return 0, err
	}
	b.dropCaches()
	return c.read(b, file)
}

// freshCopy copies a file to another place in memory and reads it once, so that the native system is at its best.
// Dropping the page cache cannot drop the pages of a tmpfs, which are dirty, but puts them at the end of
// the kernel's list and marks them for reclaim. The next read of each pays for moving it back; and the mark
// is also the one for read-ahead, so that the kernel maps such a page only by a fault of its own
// instead of sixteen at a time. A file that has been through it is read a third and mapped four
// times slower than before, which would flatter what is compared with it.
func (b *bench) freshCopy(c warmRead, file string) (string, error) {
	name := filepath.Join(b.work, "native.bin")
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	if _, err := b.session.Run(time.Minute, "cp", file, name); err != nil {
		return "", err
	}
	_, err := c.read(b, name)
	return name, err
}
