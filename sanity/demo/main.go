// Command demo shows millrace at work on this machine: it serves a real tree of files from a
// real web server that is as slow as a remote one, mounts it, copies it out twice, compares every
// checksum, and prints what each copy cost.
//
// The life of a run: make the tree (source.go), serve it, mount it, copy it out twice
// (main.go), compare (compare.go), print the table (report.go). Whatever was
// made is undone by the session at the end, also after a failure, SIGINT or SIGTERM.
// The exit code is 0 if every file of both copies is right, else 1; 2 for wrong usage.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/session"
)

// minFileSize is the least size of the generated file, in bytes.
const minFileSize = 250e6

// settings are the command line.
type settings struct {
	bin      string
	fileSize int64
	limits   serve.Options
}

func main() {
	cfg := settings{}
	var rate, size string
	flag.StringVar(&cfg.bin, "millrace", "bin/millrace", "the `program` to show")
	flag.StringVar(&size, "size", "256MiB", "`size` of the generated file, at least 250MB")
	flag.StringVar(&rate, "rate", "100MB", "`bytes` a second that the web server sends, all connections together; 0 is unlimited")
	flag.DurationVar(&cfg.limits.DelayPerRequest, "latency", 5*time.Millisecond, "what the web server waits before each response")
	flag.Parse()
	if err := cfg.parse(size, rate); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	if err := run(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// parse checks and keeps the sizes, and makes the program's path absolute.
func (c *settings) parse(size, rate string) error {
	n, err := humanize.ParseBytes(size)
	if err != nil || n < minFileSize {
		return fmt.Errorf("-size %q: a size of at least 250MB is wanted", size)
	}
	r, err := humanize.ParseBytes(rate)
	if err != nil {
		return fmt.Errorf("-rate %q: bytes a second such as 100MB, or 0", rate)
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("%q: no arguments are taken", flag.Arg(0))
	}
	c.fileSize, c.limits.BytesPerSecond = int64(n), int64(r)
	c.bin, err = filepath.Abs(c.bin)
	return err
}

// run is the demo from the tree to the table.
func run(cfg settings) error {
	if why := session.CanMount(); why != "" {
		return fmt.Errorf("this machine cannot mount: %s", why)
	}
	s := session.New(context.Background())
	defer s.Close()
	work, err := s.TempDir("", "millrace-demo-")
	if err != nil {
		return err
	}
	fmt.Printf("work directory    %s (%s), removed at the end\n", work, session.FileSystem(work))
	source, err := makeSource(s, work, cfg.fileSize)
	if err != nil {
		return err
	}
	server, err := serve.New(source.dir, cfg.limits)
	if err != nil {
		return err
	}
	s.Defer(func() { _ = server.Close() })
	m, err := mount(s, cfg, server, work, source)
	if err != nil {
		return err
	}
	results, err := copyTwice(s, server, m, work)
	if err != nil {
		return err
	}
	return finish(s, source, m, results)
}

// mounted is the mount that is shown.
type mounted struct {
	millrace session.Millrace
	dir      string
	took     time.Duration
}

// mount serves the source and mounts it.
func mount(s *session.Session, cfg settings, server *serve.Server, work string, source tree) (mounted, error) {
	addr, err := server.Start("127.0.0.1:0")
	if err != nil {
		return mounted{}, err
	}
	from := (&url.URL{Scheme: "http", Host: addr, Path: "/"}).String()
	fmt.Printf("web server        %s, Go's net/http: %s\n", from, limitsText(cfg.limits))
	tier, err := tierDir(s, work, source.bytes)
	if err != nil {
		return mounted{}, err
	}
	m := mounted{dir: filepath.Join(work, "mnt")}
	if m.millrace, err = session.NewMillrace(s, cfg.bin); err != nil {
		return mounted{}, err
	}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return mounted{}, err
	}
	// Nothing changes at this source, so what was learned of it is believed for the whole run.
	flags := []string{"--tier-dir", tier, "--quota", fmt.Sprintf("%dMi", tierBytes(source.bytes)>>20), "--revalidate", "1h"}
	m.took, err = m.millrace.Mount(from, m.dir, flags...)
	if err != nil {
		return mounted{}, err
	}
	fmt.Printf("mounted           in %d ms, the cache on %s:\n", m.took.Milliseconds(), session.FileSystem(tier))
	fmt.Printf("                  millrace mount --background %s %s %s\n", strings.Join(flags, " "), from, m.dir)
	return m, nil
}

// copied is what one copy took and cost.
type copied struct {
	dir  string
	took time.Duration
	cost serve.Stats
}

// copyTwice copies the mount out to two directories, one after the other.
func copyTwice(s *session.Session, server *serve.Server, m mounted, work string) ([]copied, error) {
	var results []copied
	for _, name := range []string{"first", "second"} {
		c := copied{dir: filepath.Join(work, name)}
		cold := forgetPages()
		fmt.Printf("%-6s copy       cp -r, %s ...", name, cold)
		before := server.Stats()
		var kill <-chan error
		if name == "second" {
			kill = killServer(m)
		}
		out, err := s.Run(20*time.Minute, "cp", "-r", m.dir, c.dir)
		if err != nil {
			fmt.Println()
			return nil, err
		}
		c.took, c.cost = out.Took, server.Stats().Sub(before)
		fmt.Printf(" %.1f s\n", c.took.Seconds())
		if kill != nil {
			if err := <-kill; err != nil {
				return nil, err
			}
			if c.took < killAfter {
				return nil, fmt.Errorf("the copy took %v, and the process that serves the mount was to be killed %v into it", c.took, killAfter)
			}
			fmt.Printf("                  (the process that serves the mount was killed with -9 %v into it; cp saw nothing)\n", killAfter)
		}
		results = append(results, c)
	}
	return results, nil
}

// killAfter is how far into the second copy the process that serves the mount is killed.
const killAfter = 500 * time.Millisecond

// killServer kills the process that serves the mount when its time has come; its keeper replaces it.
func killServer(m mounted) <-chan error {
	killed := make(chan error, 1)
	go func() {
		time.Sleep(killAfter)
		status, err := m.millrace.Status(m.dir)
		if err == nil {
			err = syscall.Kill(status.PID, syscall.SIGKILL)
		}
		killed <- err
	}()
	return killed
}

// forgetPages drops the page cache, so that the second copy cannot come from what the kernel kept of
// the first, and says whether it could.
func forgetPages() string {
	if err := session.DropPageCache(); err != nil {
		return "the page cache kept (dropping it takes root)"
	}
	return "the page cache dropped before"
}

// finish compares, unmounts and prints the table.
func finish(s *session.Session, source tree, m mounted, results []copied) error {
	status, err := m.millrace.Status(m.dir)
	if err != nil {
		return err
	}
	fmt.Print("comparing         sha256 of every file ...")
	var verdicts []verdict
	for _, c := range results {
		v, err := compare(s.Context(), source.dir, c.dir)
		if err != nil {
			fmt.Println()
			return err
		}
		verdicts = append(verdicts, v)
	}
	fmt.Println(" done")
	printTable(os.Stdout, source, status, results, verdicts)
	if err := m.millrace.Unmount(m.dir); err != nil {
		return err
	}
	for i, v := range verdicts {
		if len(v.wrong) > 0 {
			return fmt.Errorf("copy %d differs from the source in %d files, the first is %s", i+1, len(v.wrong), v.wrong[0])
		}
	}
	return nil
}
