package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// measureAlluxioCold reads a cold file whose source is the limit. millrace reads the source by itself, and feeds the
// worker.
func (b *bench) measureAlluxioCold(round int) error {
	for _, system := range b.turns(round, millrace, curl, alluxioFuse) {
		b.readLimited("alluxio-cold-limited", "alluxio-cold-traffic", system, local)
	}
	return nil
}

// measureAlluxioGateway does the same with the worker reading by the gateway.
func (b *bench) measureAlluxioGateway(round int) error {
	for _, system := range b.turns(round, millrace, curl) {
		b.readLimited("alluxio-cold-limited-gateway", "alluxio-cold-traffic-gateway", system, byGateway)
	}
	return nil
}

// readLimited reads the cold file once and keeps the rate, and what the source sent.
func (b *bench) readLimited(rate, traffic, system string, how reach) {
	var value float64
	sent, err := b.coldTraffic(system, how, func(file string) (err error) {
		if system == curl {
			value, err = b.readCurl(b.alluxio.limited.url("big/" + bigName(0)))
		} else {
			value, err = b.readCold(file)
		}
		return err
	})
	if err != nil {
		b.failed(rate, system, err)
		return
	}
	b.keep(rate, system, value)
	b.keep(traffic, system, sent)
}

// measureAlluxioReaders has four readers read one cold file at once. Alluxio's FUSE, which takes up to four times as
// long, is measured in the first round only.
func (b *bench) measureAlluxioReaders(round int) error {
	for _, system := range b.turns(round, millrace, alluxioFuse) {
		if system == millrace || round == 0 {
			b.readTogether("alluxio-cold-readers", system, local)
		}
	}
	b.readTogether("alluxio-cold-readers-gateway", millrace, byGateway)
	return nil
}

// readTogether keeps what the source sent for four readers of one mount.
func (b *bench) readTogether(name, system string, how reach) {
	if !b.cfg.wants(name) {
		return
	}
	sent, err := b.coldTraffic(system, how, func(file string) error {
		var wg sync.WaitGroup
		errs := make([]error, streams)
		for i := range streams {
			wg.Go(func() { _, errs[i] = b.readCold(file) })
		}
		wg.Wait()
		return errors.Join(errs...)
	})
	if err != nil {
		b.failed(name, system, err)
		return
	}
	b.keep(name, system, sent)
}

// coldTraffic has read read the cold file of the limited source on a fresh mount, and returns what the source sent as a
// multiple of the file's size. curl needs no mount, and its file is "".
func (b *bench) coldTraffic(system string, how reach, read func(file string) error) (float64, error) {
	var file string
	if system != curl {
		m, err := b.coldMount(system, how, inLimited+"/"+bigName(0))
		if err != nil {
			return 0, err
		}
		defer m.close()
		file = filepath.Join(m.dir, inLimited, bigName(0))
	}
	before, err := b.alluxio.limited.stats(b.session.Context())
	if err != nil {
		return 0, err
	}
	if err := read(file); err != nil {
		return 0, err
	}
	if system != curl {
		// What is fetched afterwards counts, and a block that is cached later would make the next read warm.
		if err := b.awaitCached(inLimited + "/" + bigName(0)); err != nil {
			return 0, err
		}
	}
	after, err := b.alluxio.limited.settled(b.session.Context())
	sent := after.Sub(before).BodyBytes
	if err == nil && sent < b.cfg.size {
		err = fmt.Errorf("the file was not cold: the source sent %d of %d bytes", sent, b.cfg.size)
	}
	return float64(sent) / float64(b.cfg.size), err
}

// coldMount frees the file, and mounts for a reader that is about to come.
func (b *bench) coldMount(system string, how reach, file string) (*mount, error) {
	if err := b.coolAlluxio(file); err != nil {
		return nil, err
	}
	return b.mountAlluxio(system, how)
}

// measureAlluxioBare reads a cold file from a source without limits. At the end all of it must be cached.
func (b *bench) measureAlluxioBare(round int) error {
	for _, system := range b.turns(round, millrace, alluxioFuse) {
		v, err := b.readBare(system)
		if err != nil {
			b.failed("alluxio-cold-seq", system, err)
			continue
		}
		b.keep("alluxio-cold-seq", system, v)
	}
	return nil
}

// readBare is the MB/s of a cold read from the bare source.
func (b *bench) readBare(system string) (float64, error) {
	file := inBare + "/" + bigName(0)
	m, err := b.coldMount(system, local, file)
	if err != nil {
		return 0, err
	}
	defer m.close()
	v, err := b.readCold(filepath.Join(m.dir, file))
	if err != nil {
		return 0, err
	}
	return v, b.awaitCached(file)
}

// tailBytes is what is read of the end of a cold file.
const tailBytes = 1 << 20

// measureAlluxioTail reads the end of a cold file in one block, the whole command, and waits until the rest is cached
// in the background.
func (b *bench) measureAlluxioTail(round int) error {
	for _, system := range b.turns(round, millrace, curl, alluxioFuse) {
		var values []float64
		for i := range repeats {
			if i > 0 && system == alluxioFuse {
				break
			}
			v, err := b.tail(system)
			if err != nil {
				b.failed("alluxio-cold-tail", system, err)
				break
			}
			values = append(values, v)
		}
		if len(values) > 0 {
			b.keep("alluxio-cold-tail", system, median(values))
		}
	}
	return nil
}

// tail is how many milliseconds the end of the cold file takes.
func (b *bench) tail(system string) (float64, error) {
	if system == curl {
		out, err := b.session.Run(time.Minute, "curl", "-sS", "--fail", "-r", fmt.Sprintf("-%d", tailBytes), "-o",
			"/dev/null", b.alluxio.bare.url("big/"+bigName(0)))
		return milliseconds(out.Took), err
	}
	file := inBare + "/" + bigName(0)
	m, err := b.coldMount(system, local, file)
	if err != nil {
		return 0, err
	}
	defer m.close()
	took, err := b.toNowhere(readLimit, "tail", "-c", strconv.Itoa(tailBytes), filepath.Join(m.dir, file))
	if err == nil {
		err = b.awaitCached(file)
	}
	return milliseconds(took), err
}
