package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/keeper"
)

const (
	// defaultQuota is the largest quota that a tier gets where none is given.
	defaultQuota = 2 << 30
	// memoryDir is where tiers in memory live.
	memoryDir = "/dev/shm"
)

const mountAbout = `Shows SOURCE as the read-only directory DIR, which must exist and be empty. What is
read is kept in the tier directories, and reads at the speed of memory the second time.

SOURCE is https://host/path/, s3://bucket/prefix, /a/directory, or a cluster's masters as in
alluxio://host:19998,host:19998/path, whose workers keep what is read. millrace stays in the
foreground until Ctrl-C, or with --background returns once the mount answers. Secrets for
a source belong into --options-file or the environment, never into an argument.`

// mountConfig is what the flags of mount say.
type mountConfig struct {
	source, dir string

	tierDirs  []string
	quotas    []int64
	high, low float64

	options     map[string]string
	optionsFile string
	connections int
	timeout     time.Duration
	revalidate  time.Duration
	staging     int64

	allowOther, noPassthrough, inode32 bool
	fileMode, dirMode                  fs.FileMode
	readAhead                          int64

	socket, logLevel, logFormat, logFile string
	background                           bool
}

func mountCommand() *command.Command {
	f, c := newMount()
	f.Runs(func(rest []string, _ io.Writer) error {
		if order, err := keeper.Ordered(); order != nil || err != nil {
			return commandline.Keep(order, err)
		}
		if err := c.take(f, rest); err != nil {
			return err
		}
		return c.run()
	})
	return f
}

// newMount makes the flags of mount, and what they fill in.
func newMount() (*command.Command, *mountConfig) {
	c := &mountConfig{
		high: 0.95, low: 0.7, options: map[string]string{}, connections: 16,
		timeout: 10 * time.Second, revalidate: time.Minute, staging: 32 << 20,
		fileMode: 0o444, dirMode: 0o555, readAhead: 4 << 20,
		logLevel: "info", logFormat: "text",
	}
	f := command.New("mount", "[flags] SOURCE DIR", "show a remote source as a directory", mountAbout)
	f.Heading("The source")
	c.sourceFlags(f)
	f.Heading("What is kept of it")
	c.tierFlags(f)
	f.Heading("The directory")
	c.mountFlags(f)
	f.Heading("The process")
	c.processFlags(f)
	return f, c
}

// take takes the arguments beside the flags, and checks all that can be checked without looking at the machine.
func (c *mountConfig) take(f *command.Command, rest []string) error {
	switch {
	case len(rest) != 2:
		return f.Wrong("mount takes a SOURCE and a DIR, not %s", command.Arguments(len(rest)))
	case rest[0] == "":
		return f.Wrong("the SOURCE is empty; accepted are a URL and an absolute path")
	case rest[1] == "":
		return f.Wrong("the DIR is empty; accepted is an empty directory")
	}
	c.source, c.dir = rest[0], rest[1]
	switch {
	case isAlluxio(c.source) && (len(c.tierDirs) > 0 || len(c.quotas) > 0):
		return f.Wrong("--tier-dir and --quota are for tiers of this machine; what %s shows is kept by its workers",
			c.source)
	case c.low >= c.high:
		return f.Wrong("--low %v is not below --high %v", c.low, c.high)
	case len(c.tierDirs) > 1 && len(c.quotas) > 0 && len(c.quotas) != len(c.tierDirs),
		len(c.quotas) > max(1, len(c.tierDirs)):
		return f.Wrong("--quota is given %d times and --tier-dir %d times: give one quota for each tier directory, in "+
			"the same order", len(c.quotas), len(c.tierDirs))
	}
	return nil
}

// run serves the mount as a child of its keeper, or becomes the keeper.
func (c *mountConfig) run() error {
	child, err := keeper.Open()
	if err != nil {
		return err
	}
	if err := c.absolute(child.StartedIn()); err != nil {
		return err
	}
	if child != nil {
		return serveAsChild(c, child)
	}
	order, err := keeper.NewOrder(c.dir)
	if err != nil {
		return err
	}
	order.LogLevel, order.LogFormat = c.logLevel, c.logFormat
	if c.background {
		return startInBackground(c, order)
	}
	return order.Become(keeperProgram())
}

func (c *mountConfig) sourceFlags(f *command.Command) {
	f.SourceOptions(c.options, &c.optionsFile)
	command.Parsed(f, &c.connections, "connections", "`N` connections to the source at most", "16",
		commandline.CountTo(1024))
	command.Parsed(f, &c.timeout, "timeout", "`TIME` after which a silent source gives an I/O error", "10s",
		commandline.ParseDuration)
	command.Parsed(f, &c.revalidate, "revalidate",
		"longest `TIME` to open or list without asking the source again, less for what changed lately; 0 always asks; "+
			"TIME,content compares the content of a web server's files, as the option validate=content does", "1m",
		c.parseRevalidate)
}

// parseRevalidate reads a time, and whether content is compared.
func (c *mountConfig) parseRevalidate(s string) (time.Duration, error) {
	age, content := strings.CutSuffix(s, ",content")
	d, err := commandline.ParseAge(age)
	if err != nil {
		return 0, fmt.Errorf("%w; also with ,content after it, as in 1m,content", err)
	}
	if content {
		c.options["validate"] = "content"
	}
	return d, nil
}

func (c *mountConfig) tierFlags(f *command.Command) {
	f.Define("tier-dir", "`DIR` that keeps what was read; may be repeated, fastest first", defaultTierRoot(),
		func(s string) error {
			if s == "" {
				return command.ErrEmpty
			}
			c.tierDirs = append(c.tierDirs, s)
			return nil
		})
	f.Define("quota", "`SIZE` of a tier directory, one for each --tier-dir",
		"2Gi, or half of the tier's file system where that is smaller", func(s string) error {
			n, err := commandline.SizeOver(s)
			c.quotas = append(c.quotas, n)
			return err
		})
	command.Parsed(f, &c.high, "high", "`PART` of the quota at which eviction begins", "0.95", commandline.ParseRatio)
	command.Parsed(f, &c.low, "low", "`PART` of the quota down to which it goes", "0.7", commandline.ParseRatio)
	command.Parsed(f, &c.staging, "staging", "`SIZE` of the memory for data on its way to a tier or past a full one",
		"32Mi", commandline.SizeOver)
}

func (c *mountConfig) mountFlags(f *command.Command) {
	f.Toggle(&c.allowOther, "allow-other", "let other users read the mount")
	f.Toggle(&c.noPassthrough, "no-passthrough", "never let the kernel read cached files by itself")
	f.Toggle(&c.inode32, "inode32", "give inode numbers that fit 32 bits, for programs that know no larger ones")
	command.Parsed(f, &c.fileMode, "file-mode", "`MODE` of files", "0444", commandline.ParseMode)
	command.Parsed(f, &c.dirMode, "dir-mode", "`MODE` of directories", "0555", commandline.ParseMode)
	command.Parsed(f, &c.readAhead, "read-ahead", "`SIZE` that the kernel reads ahead", "4Mi", commandline.SizeOver)
}

func (c *mountConfig) processFlags(f *command.Command) {
	f.Toggle(&c.background, "background", "return once the mount answers, and go on in the background")
	f.Text(&c.socket, "socket", "`PATH` of the socket that answers status and warm (default in the runtime directory)")
	f.Logging(&c.logLevel, &c.logFormat)
	f.Text(&c.logFile, "log-file", "`FILE` for the log (default stderr, or with --background in the runtime directory)")
}

// absolute makes every path independent of the working directory, which a background process
// gives up; started is the one that the command was given in.
func (c *mountConfig) absolute(started string) error {
	paths := []*string{&c.dir, &c.optionsFile, &c.socket, &c.logFile}
	for i := range c.tierDirs {
		paths = append(paths, &c.tierDirs[i])
	}
	if c.source == "." || c.source == ".." || strings.HasPrefix(c.source, "./") || strings.HasPrefix(c.source, "../") {
		paths = append(paths, &c.source)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		if started != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(started, *p)
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("%s: %w", *p, err)
		}
		*p = abs
	}
	return nil
}

// defaultTierRoot is the directory in memory, or where there is none the one for temporary
// files, that holds what this user's mounts have cached; each source has its own directory there.
func defaultTierRoot() string {
	root := memoryDir
	if st, err := os.Stat(root); err != nil || !st.IsDir() {
		root = os.TempDir()
	}
	return filepath.Join(root, "millrace-"+strconv.Itoa(os.Geteuid()))
}

// levels makes the tiers' configuration: the directories and quotas that were given, else
// the defaults.
func (c *mountConfig) levels() ([]embedded.LevelConfig, error) {
	dirs := c.tierDirs
	if len(dirs) == 0 {
		root := defaultTierRoot()
		// A name in /dev/shm is anybody's to take.
		if err := agent.PrivateDir(root); err != nil {
			return nil, fmt.Errorf("the default tier directory cannot be used: %w; give another one with --tier-dir",
				err)
		}
		dirs = []string{root}
	}
	levels := make([]embedded.LevelConfig, 0, len(dirs))
	for i, dir := range dirs {
		level := embedded.LevelConfig{Dir: dir, High: c.high, Low: c.low}
		if i < len(c.quotas) {
			level.Quota = c.quotas[i]
		} else {
			size, err := fileSystemSize(dir)
			if err != nil {
				return nil, fmt.Errorf("tier directory %s: %w", dir, err)
			}
			if level.Quota = min(defaultQuota, size/2); level.Quota == 0 {
				return nil, fmt.Errorf("tier directory %s has no space: accepted is one in memory or on a disk", dir)
			}
		}
		levels = append(levels, level)
	}
	return levels, nil
}

// fileSystemSize is the size in bytes of the file system that holds dir, or will hold it.
func fileSystemSize(dir string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Blocks) * st.Frsize, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, err
		}
		dir = filepath.Dir(dir)
	}
}
