// Command demo shows millrace at work on this machine: it serves a real tree of files from a
// real web server that is as slow as a remote one, mounts it, copies it out twice, compares every
// checksum, and prints what each copy cost.
//
// The life of a run: make the tree (source.go), serve it, mount it, map the model (model.go), copy it all out twice,
// map the model again (main.go), compare (compare.go), print the table (report.go). Whatever was
// made is undone by the session at the end, also after a failure, SIGINT or SIGTERM.
// The exit code is 0 if every file of both copies is right, else 1; 2 for wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
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

// minModelSize is the least size of the model, in bytes.
const minModelSize = 250e6

// settings are the command line.
type settings struct {
	bin     string
	model   int64
	limits  serve.Options
	mapOnly string
}

func main() {
	cfg := settings{}
	var rate, size string
	flag.StringVar(&cfg.bin, "millrace", "bin/millrace", "the `program` to show")
	flag.StringVar(&size, "size", "256MiB", "`size` of the model, at least 250MB")
	flag.StringVar(&rate, "rate", "100MB",
		"`bytes` a second that the web server sends, all connections together; 0 is unlimited")
	flag.DurationVar(&cfg.limits.DelayPerRequest, "latency", 5*time.Millisecond,
		"what the web server waits before each response")
	flag.StringVar(&cfg.mapOnly, "map", "",
		"only map this `model`, and print what that took: what the demo has a process of its own do")
	flag.Parse()
	if cfg.mapOnly != "" {
		printMapped(cfg.mapOnly)
		return
	}
	if err := cfg.parse(size, rate); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	if err := run(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// printMapped maps a model and prints the outcome as JSON.
func printMapped(name string) {
	m, err := mapModel(context.Background(), name)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// parse checks and keeps the sizes, and makes the program's path absolute.
func (c *settings) parse(size, rate string) error {
	n, err := humanize.ParseBytes(size)
	if err != nil || n < minModelSize {
		return fmt.Errorf("-size %q: a size of at least 250MB is wanted", size)
	}
	r, err := humanize.ParseBytes(rate)
	if err != nil {
		return fmt.Errorf("-rate %q: bytes a second such as 100MB, or 0", rate)
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("%q: no arguments are taken", flag.Arg(0))
	}
	c.model, c.limits.BytesPerSecond = int64(n), int64(r)
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
	var source tree
	err = during("making the source", seconds, func() error {
		source, err = makeSource(s, work, cfg.model)
		return err
	})
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
	r := results{}
	if r.cold, err = mapIn(s, server, m, source, "first"); err != nil {
		return err
	}
	if r.copies, err = copyTwice(s, server, m, work, source); err != nil {
		return err
	}
	if r.warm, err = mapIn(s, server, m, source, "second"); err != nil {
		return err
	}
	return finish(s, source, m, r)
}

// results are what the run measured.
type results struct {
	// cold and warm are the model's mapping before the copies and after them.
	cold, warm mapped
	copies     []copied
}

// mapIn maps the model of the mount, and says how long that took.
func mapIn(s *session.Session, server *serve.Server, m mounted, source tree, which string) (got mapped, err error) {
	cold := forgetPages()
	before := server.Stats()
	err = during("mapping", func(elapsed time.Duration) string {
		return share(server.Stats().Sub(before).BodyBytes, source.model, size, elapsed)
	}, func() error {
		got, err = mapInChild(s, filepath.Join(m.dir, modelName))
		return err
	})
	got.cost = server.Stats().Sub(before)
	if err == nil {
		fmt.Printf("%-6s mapping    the model, by mmap, %s ... %s\n", which, cold, got.rate())
	}
	return got, err
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
	flags := []string{
		"--tier-dir", tier, "--quota", fmt.Sprintf("%dMi", tierBytes(source.bytes)>>20), "--revalidate",
		"1h",
	}
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
func copyTwice(s *session.Session, server *serve.Server, m mounted, work string, source tree) ([]copied, error) {
	var copies []copied
	for _, name := range []string{"first", "second"} {
		c, err := copyOut(s, server, m, filepath.Join(work, name), source)
		if err != nil {
			return nil, err
		}
		copies = append(copies, c)
	}
	return copies, nil
}

// copyOut copies the mount out. In the second copy the process that serves the mount is killed.
func copyOut(s *session.Session, server *serve.Server, m mounted, to string, source tree) (copied, error) {
	c, name := copied{dir: to}, filepath.Base(to)
	cold := forgetPages()
	fmt.Printf("%-6s copy       cp -r of all, %s ...\n", name, cold)
	before := server.Stats()
	var kill <-chan killing
	if name == "second" {
		kill = killServer(m)
	}
	err := during("copying", func(elapsed time.Duration) string {
		return share(countFiles(to), int64(source.files), humanize.Comma, elapsed) + " (files)"
	}, func() error {
		out, err := s.Run(20*time.Minute, "cp", "-r", m.dir, c.dir)
		c.took = out.Took
		return err
	})
	c.cost = server.Stats().Sub(before)
	ended := time.Now()
	if err != nil {
		return c, err
	}
	fmt.Printf("                  %.1f s\n", c.took.Seconds())
	if kill == nil {
		return c, nil
	}
	return c, checkKill(m, <-kill, ended.Add(-c.took), ended)
}

// checkKill reports whether the mount's process was killed while the copy went on, and another serves now.
func checkKill(m mounted, k killing, began, ended time.Time) error {
	if k.err != nil {
		return k.err
	}
	if !k.at.Before(ended) {
		return errors.New("the copy had ended before the process that serves the mount was killed")
	}
	status, err := m.millrace.Status(m.dir)
	if err != nil {
		return err
	}
	if status.PID == k.pid {
		return fmt.Errorf("process %d was killed and serves the mount", k.pid)
	}
	fmt.Printf("                  (process %d, which served the mount, was killed with -9 after %.1f s; %d serves it "+
		"now, and cp saw nothing)\n",
		k.pid, k.at.Sub(began).Seconds(), status.PID)
	return nil
}

// countFiles counts the files below a directory, as far as it can be read while it grows.
func countFiles(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// killAfter is how far into the second copy the process that serves the mount is looked for, to be killed.
const killAfter = 200 * time.Millisecond

// killing is when which process was killed.
type killing struct {
	at  time.Time
	pid int
	err error
}

// killServer kills the process that serves the mount when its time has come; its keeper replaces it.
func killServer(m mounted) <-chan killing {
	killed := make(chan killing, 1)
	go func() {
		time.Sleep(killAfter)
		status, err := m.millrace.Status(m.dir)
		if err == nil {
			err = syscall.Kill(status.PID, syscall.SIGKILL)
		}
		killed <- killing{time.Now(), status.PID, err}
	}()
	return killed
}

// forgetPages drops the page cache, so that the second copy cannot come from what the kernel kept of
// the first, and reports whether it could.
func forgetPages() string {
	if err := session.DropPageCache(); err != nil {
		return "the page cache kept (dropping it takes root)"
	}
	return "the page cache dropped before"
}

// finish compares, unmounts and prints the table.
func finish(s *session.Session, source tree, m mounted, r results) error {
	status, err := m.millrace.Status(m.dir)
	if err != nil {
		return err
	}
	fmt.Println("comparing         sha256 of every file of both copies, and of what was mapped")
	var verdicts []verdict
	for _, c := range r.copies {
		var v verdict
		err := during("comparing", seconds, func() error {
			v, err = compare(s.Context(), source.dir, c.dir)
			return err
		})
		if err != nil {
			return err
		}
		verdicts = append(verdicts, v)
	}
	want, _, err := checksum(filepath.Join(source.dir, modelName))
	if err != nil {
		return err
	}
	printTable(os.Stdout, source, status, r, verdicts)
	if err := m.millrace.Unmount(m.dir); err != nil {
		return err
	}
	if r.cold.Sum != want || r.warm.Sum != want {
		return errors.New("what was mapped differs from the source's model")
	}
	for i, v := range verdicts {
		if len(v.wrong) > 0 {
			return fmt.Errorf("copy %d differs from the source in %d files, the first is %s", i+1, len(v.wrong),
				v.wrong[0])
		}
	}
	return nil
}
