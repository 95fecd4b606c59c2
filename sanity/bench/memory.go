package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sampleEvery is how often the memory of a process is looked at.
const sampleEvery = 10 * time.Millisecond

// measureMemory reads four new files at once and watches the process that serves them.
func (b *bench) measureMemory(round int) error {
	for _, system := range b.turns(round, millrace, rclone) {
		m, err := b.newMount(system, b.bare, "big/")
		if err != nil {
			b.failed("memory", system, err)
			continue
		}
		peak, err := b.readStreams(m)
		m.close()
		if err != nil {
			b.failed("memory", system, err)
			continue
		}
		b.keep("memory", system, float64(peak)/1e6)
	}
	return nil
}

// readStreams reads all large files at once and returns the greatest number of bytes that the serving
// processes had in memory meanwhile.
func (b *bench) readStreams(m *mount) (int64, error) {
	done := make(chan struct{})
	peak := make(chan int64, 1)
	go func() { peak <- watchMemory(m.pids, done) }()
	var wg sync.WaitGroup
	errs := make([]error, streams)
	for i := range streams {
		wg.Go(func() { _, errs[i] = b.readCold(filepath.Join(m.dir, bigName(i))) })
	}
	wg.Wait()
	close(done)
	return <-peak, errors.Join(errs...)
}

// watchMemory samples the processes until done is closed and returns the greatest sum.
func watchMemory(pids []int, done <-chan struct{}) int64 {
	var peak int64
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		var sum int64
		for _, pid := range pids {
			sum += privateMemory(pid)
		}
		peak = max(peak, sum)
		select {
		case <-done:
			return peak
		case <-tick.C:
		}
	}
}

// privateMemory is what a process has in memory, in bytes: its anonymous pages and those of its
// files, the program among them. Pages of a tier in tmpfs are RssShmem and not counted.
func privateMemory(pid int) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	var sum int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if name != "RssAnon" && name != "RssFile" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err == nil {
			sum += kib << 10
		}
	}
	return sum
}
