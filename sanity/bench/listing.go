package main

import "path/filepath"

// measureList lists the tree of small files. Its mounts are made and listed once, in the first
// round, and serve all rounds: listing it for the first time is not what is measured.
func (b *bench) measureList(round int) error {
	if round == 0 {
		for _, system := range b.turns(0, millrace, rclone) {
			m, err := b.newMount(system, b.bare, "many/")
			if err == nil {
				_, err = b.list(m.dir)
			}
			if err != nil {
				b.failed("ls-warm", system, err)
				continue
			}
			b.lists[system] = m
		}
	}
	for _, system := range b.turns(round, native, millrace, rclone) {
		dir := filepath.Join(b.data, "many")
		if system != native {
			m, mounted := b.lists[system]
			if !mounted {
				continue
			}
			dir = m.dir
		}
		b.dropCaches()
		seconds, err := b.list(dir)
		if err != nil {
			b.failed("ls-warm", system, err)
			continue
		}
		b.keep("ls-warm", system, seconds)
	}
	if round == b.cfg.rounds-1 {
		for _, m := range b.lists {
			m.close()
		}
	}
	return nil
}
