package main

import (
	"path/filepath"
	"time"
)

// measureMount times the command that mounts.
func (b *bench) measureMount(round int) error {
	for _, system := range b.turns(round, millrace, rclone) {
		m, err := b.newMount(system, b.bare, "big/")
		if err != nil {
			b.failed("mount", system, err)
			continue
		}
		b.keep("mount", system, milliseconds(m.took))
		m.close()
	}
	return nil
}

// measureCold reads a new file from the bare server, and counts what the server sent.
func (b *bench) measureCold(round int) error {
	for _, system := range b.turns(round, millrace, rclone, curl) {
		before, err := b.bare.stats(b.session.Context())
		if err != nil {
			return err
		}
		b.readNew("cold-seq", system, b.bare, func() {
			after, err := b.bare.settled(b.session.Context())
			if err != nil {
				b.failed("cold-traffic", system, err)
				return
			}
			sent := after.Sub(before).BodyBytes
			b.keep("cold-traffic", system, float64(sent)/float64(b.cfg.size))
		})
	}
	return nil
}

// measureColdLimited reads a new file from a server whose wire is the limit.
func (b *bench) measureColdLimited(round int) error {
	for _, system := range b.turns(round, millrace, rclone, curl) {
		b.readNew("cold-seq-limited", system, b.limited, nil)
	}
	return nil
}

// measureColdDelay reads a new file from a server that is far away.
func (b *bench) measureColdDelay(round int) error {
	for _, system := range b.turns(round, millrace, rclone, curl) {
		b.readNew("cold-seq-delay", system, b.delayed, nil)
	}
	return nil
}

// readNew reads the first large file for the first time, then calls after (if not nil) while it is
// still mounted.
func (b *bench) readNew(name, system string, from *webServer, after func()) {
	var value float64
	var err error
	if system == curl {
		value, err = b.readCurl(from.url("big/" + bigName(0)))
	} else {
		m, mountErr := b.newMount(system, from, "big/")
		if mountErr != nil {
			b.failed(name, system, mountErr)
			return
		}
		defer m.close()
		value, err = b.readCold(filepath.Join(m.dir, bigName(0)))
	}
	if err != nil {
		b.failed(name, system, err)
		return
	}
	b.keep(name, system, value)
	if after != nil {
		after()
	}
}

// measureFirstByte times how long the first byte of a new file takes.
func (b *bench) measureFirstByte(round int) error {
	for _, system := range b.turns(round, millrace, rclone, curl) {
		value, err := b.firstByte(system)
		if err != nil {
			b.failed("first-byte", system, err)
			continue
		}
		b.keep("first-byte", system, value)
	}
	return nil
}

// firstByte is the median time in milliseconds of several commands, each of a new mount or a new
// connection, with the start of the process in it, as a user has it.
func (b *bench) firstByte(system string) (float64, error) {
	var values []float64
	for range repeats {
		one := b.firstByteMounted
		if system == curl {
			one = b.firstByteCurl
		}
		v, err := one(system)
		if err != nil {
			return 0, err
		}
		values = append(values, v)
	}
	return median(values), nil
}

// firstByteCurl asks for one byte.
func (b *bench) firstByteCurl(string) (float64, error) {
	out, err := b.session.Run(time.Minute, "curl", "-sS", "--fail", "-r", "0-0", "-o", "/dev/null",
		b.bare.url("big/"+bigName(0)))
	return milliseconds(out.Took), err
}

// firstByteMounted reads one byte of a file that the mount has not seen yet.
func (b *bench) firstByteMounted(system string) (float64, error) {
	m, err := b.newMount(system, b.bare, "big/")
	if err != nil {
		return 0, err
	}
	defer m.close()
	out, err := b.session.Run(time.Minute, "head", "-c", "1", filepath.Join(m.dir, bigName(0)))
	return milliseconds(out.Took), err
}

// milliseconds is a duration with its fraction.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
