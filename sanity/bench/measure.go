package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/sanity/session"
)

const (
	// readLimit bounds one read of all large files, listLimit one listing.
	readLimit = 10 * time.Minute
	listLimit = 10 * time.Minute
	// fioSeconds is how long fio reads.
	fioSeconds = 3
)

// ddTime is in what dd says at its end: "1073741824 bytes (1.1 GB, 1.0 GiB) copied, 0.1 s, 10 GB/s".
var ddTime = regexp.MustCompile(`(\d+) bytes.*copied, ([0-9.e+-]+) s`)

// readWarm reads the file with dd and returns MB/s by dd's own clock, which leaves out the start of the
// process: a tenth of a second is measured here.
func (b *bench) readWarm(name string) (float64, error) {
	_, stderr, err := b.dd(name)
	if err != nil {
		return 0, err
	}
	m := ddTime.FindStringSubmatch(stderr)
	if m == nil || m[1] != strconv.FormatInt(b.cfg.size, 10) {
		return 0, fmt.Errorf("dd read something else than %d bytes: %s", b.cfg.size, stderr)
	}
	seconds, err := strconv.ParseFloat(m[2], 64)
	return b.megabytes() / seconds, err
}

// readCold reads the file with dd and returns MB/s over the whole command, with the lookup and the open.
func (b *bench) readCold(name string) (float64, error) {
	took, stderr, err := b.dd(name)
	if err != nil {
		return 0, err
	}
	if m := ddTime.FindStringSubmatch(stderr); m == nil || m[1] != strconv.FormatInt(b.cfg.size, 10) {
		return 0, fmt.Errorf("dd read something else than %d bytes: %s", b.cfg.size, stderr)
	}
	return b.megabytes() / took.Seconds(), nil
}

// dd reads a file to nowhere in pieces of 1 MiB.
func (b *bench) dd(name string) (took time.Duration, stderr string, err error) {
	ctx, cancel := context.WithTimeout(b.session.Context(), readLimit)
	defer cancel()
	cmd := session.Command(ctx, "dd", "if="+name, "of=/dev/null", "bs=1M")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := session.RunCmd(ctx, cmd)
	return out.Took, out.Stderr, err
}

// megabytes is the size of a large file in 10^6 bytes.
func (b *bench) megabytes() float64 { return float64(b.cfg.size) / 1e6 }

// readCurl downloads the file to nowhere and returns MB/s by curl's own clock, which begins after
// its start.
func (b *bench) readCurl(url string) (float64, error) {
	out, err := b.session.Run(readLimit, "curl", "-sS", "--fail", "-o", "/dev/null", "-w",
		"%{size_download} %{time_total}", url)
	if err != nil {
		return 0, err
	}
	size, seconds, _ := strings.Cut(out.Stdout, " ")
	if size != strconv.FormatInt(b.cfg.size, 10) {
		return 0, fmt.Errorf("curl got %s of %d bytes", size, b.cfg.size)
	}
	t, err := strconv.ParseFloat(seconds, 64)
	return b.megabytes() / t, err
}

// readRandom is the number of random 4 KiB reads a second that two processes do with fio.
func (b *bench) readRandom(name string) (float64, error) {
	out, err := b.session.Run(readLimit, "fio", "--name=random", "--filename="+name, "--readonly", "--rw=randread",
		"--bs=4k",
		"--ioengine=psync", "--numjobs=2", "--group_reporting", "--norandommap", "--time_based",
		fmt.Sprintf("--runtime=%d", fioSeconds),
		"--output-format=json")
	if err != nil {
		return 0, err
	}
	var report struct {
		Jobs []struct {
			Error int `json:"error"`
			Read  struct {
				IOPS float64 `json:"iops"`
			} `json:"read"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal([]byte(out.Stdout), &report); err != nil {
		return 0, fmt.Errorf("fio's report: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		return 0, errors.New("fio's report has an error or no job")
	}
	return report.Jobs[0].Read.IOPS, nil
}

// mapScript maps a file, touches one byte of every page in order, and prints the seconds. The slice
// with a step is a loop in C: the pages are measured, not the interpreter.
const mapScript = `
import mmap, os, sys, time
with open(sys.argv[1], "rb") as f:
    size = os.fstat(f.fileno()).st_size
    begin = time.perf_counter()
    with mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ) as m:
        pages = m[::mmap.PAGESIZE]
    print(len(pages), time.perf_counter() - begin)
`

// readMapped touches every page of the mapped file and returns the MB/s of pages gone through.
func (b *bench) readMapped(name string) (float64, error) {
	out, err := b.session.Run(readLimit, "python3", "-c", mapScript, name)
	if err != nil {
		return 0, err
	}
	pages, seconds, _ := strings.Cut(strings.TrimSpace(out.Stdout), " ")
	n, err := strconv.ParseInt(pages, 10, 64)
	if err != nil || n < b.cfg.size/int64(os.Getpagesize()) {
		return 0, fmt.Errorf("python3 touched %q pages", pages)
	}
	t, err := strconv.ParseFloat(seconds, 64)
	return b.megabytes() / t, err
}

// list is how many seconds ls -lR of the directory takes.
func (b *bench) list(dir string) (float64, error) {
	took, err := b.toNowhere(listLimit, "ls", "-lR", dir)
	return took.Seconds(), err
}

// toNowhere is how long a command takes whose output is dropped without a goroutine of ours that copies it.
func (b *bench) toNowhere(limit time.Duration, name string, args ...string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(b.session.Context(), limit)
	defer cancel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	cmd := session.Command(ctx, name, args...)
	cmd.Stdout = null
	out, err := session.RunCmd(ctx, cmd)
	return out.Took, err
}
