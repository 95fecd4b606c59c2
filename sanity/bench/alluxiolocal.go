package main

import "path/filepath"

// alluxioRead is a warm read of a file that the cluster shows.
type alluxioRead struct {
	warmRead
	// in is the directory that the file is in.
	in string
}

// alluxioReads are done on a local mount, one after the other.
func alluxioReads() []alluxioRead {
	return []alluxioRead{
		{warmRead{name: "alluxio-warm-seq", program: "dd", repeats: repeats, read: (*bench).readWarm}, inOne},
		{warmRead{name: "alluxio-warm-seq-blocks", program: "dd", repeats: repeats, read: (*bench).readWarm}, inBlocks},
		{warmRead{name: "alluxio-rand4k", program: "fio", repeats: 1, read: (*bench).readRandom}, inOne},
		{warmRead{name: "alluxio-rand4k-blocks", program: "fio", repeats: 1, read: (*bench).readRandom}, inBlocks},
		{warmRead{name: "alluxio-mmap", program: "python3", repeats: repeats, read: (*bench).readMapped}, inOne},
	}
}

// measureAlluxioLocal mounts once for each system, lists, reads what the local worker has in every way, and then looks
// at the memory of the processes that served all of that. The memory case has everything done, asked for or not.
func (b *bench) measureAlluxioLocal(round int) error {
	mounts := b.mountEach(round, "alluxio-warm-seq", local)
	defer func() { closeAll(mounts) }()
	all := b.cfg.wants("alluxio-memory")
	if all || b.cfg.wants("alluxio-ls-fresh") || b.cfg.wants("alluxio-ls-again") {
		b.listAlluxio(round, mounts)
	}
	for _, c := range alluxioReads() {
		if (all || b.cfg.wants(c.name)) && b.installed(c.program, c.name) {
			b.readAlluxio(c, round, mounts)
		}
	}
	if all {
		b.memoryOfAll(round, mounts)
	}
	return nil
}

// readAlluxio measures a warm read on both mounts, and on the file itself.
func (b *bench) readAlluxio(c alluxioRead, round int, mounts map[string]*mount) {
	files := map[string]string{native: filepath.Join(b.alluxioData(c.in), bigName(0))}
	for system, m := range mounts {
		files[system] = filepath.Join(m.dir, c.in, bigName(0))
	}
	b.measureWarmCase(c.warmRead, round, files)
}

// listAlluxio lists the tree of small files on mounts that have not seen it, and again.
func (b *bench) listAlluxio(round int, mounts map[string]*mount) {
	for _, name := range []string{"alluxio-ls-fresh", "alluxio-ls-again"} {
		for _, system := range b.turns(round, native, millrace, alluxioFuse) {
			dir := b.alluxioData(inMany)
			if system != native {
				m, mounted := mounts[system]
				if !mounted {
					continue
				}
				dir = filepath.Join(m.dir, inMany)
			}
			b.dropCaches()
			seconds, err := b.list(dir)
			if err != nil {
				b.failed(name, system, err)
				continue
			}
			b.keep(name, system, seconds)
		}
	}
}

// memoryOfAll has each mount read a cold file too, and looks at the memory of its process.
func (b *bench) memoryOfAll(round int, mounts map[string]*mount) {
	file := inBare + "/" + bigName(0)
	for _, system := range b.turns(round, millrace, alluxioFuse) {
		m, mounted := mounts[system]
		if !mounted {
			continue
		}
		err := b.coolAlluxio(file)
		if err == nil {
			_, err = b.readCold(filepath.Join(m.dir, file))
		}
		if err != nil {
			b.failed("alluxio-memory", system, err)
			continue
		}
		var sum int64
		for _, pid := range m.pids {
			sum += privateMemory(pid)
		}
		b.keep("alluxio-memory", system, float64(sum)/1e6)
	}
}
