package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/sanity/session"
)

// shellLimit bounds one command of Alluxio's shells.
const shellLimit = 5 * time.Minute

// clientHeap is what a shell needs to list a large tree.
const clientHeap = 256 * mib

// The loggers of servers and of the shells write to their standard error.
const (
	logging = `log4j.rootLogger=%s, A
log4j.appender.A=org.apache.log4j.ConsoleAppender
log4j.appender.A.target=System.err
log4j.appender.A.layout=org.apache.log4j.PatternLayout
log4j.appender.A.layout.ConversionPattern=%%d{ISO8601} %%-5p %%c{1} - %%m%%n
`
	serverLogging, clientLogging = "log4j.properties", "log4j-client.properties"
	hostsFile                    = "hosts"
)

// writeConfigurations writes what every server and the shells read at their start.
func (c *Cluster) writeConfigurations() error {
	for name, level := range map[string]string{serverLogging: "INFO", clientLogging: "FATAL"} {
		if err := os.WriteFile(filepath.Join(c.dir, name), fmt.Appendf(nil, logging, level), 0o600); err != nil {
			return err
		}
	}
	if err := c.writeHosts(); err != nil {
		return err
	}
	site := c.siteProperties()
	for _, s := range c.Servers() {
		more := c.cfg.MasterProperties
		if s.Role == Worker {
			more = c.cfg.WorkerProperties
		}
		if err := c.writeConfiguration(s.dir, site, s.ownProperties(), c.cfg.Properties, more); err != nil {
			return err
		}
	}
	return c.clientConfiguration(c.clientDir(), nil)
}

// writeHosts writes the only names that the Java processes know. They look up the names of addresses often, and a name
// server that does not answer would hold them up each time.
func (c *Cluster) writeHosts() error {
	var text bytes.Buffer
	text.WriteString("127.0.0.1 localhost\n")
	if name, err := os.Hostname(); err == nil {
		fmt.Fprintf(&text, "127.0.0.1 %s\n", name)
	}
	for _, s := range c.Servers() {
		fmt.Fprintf(&text, "%s %s\n%s %s\n", s.bind, s.bind, s.Host, s.Host)
	}
	return os.WriteFile(filepath.Join(c.dir, hostsFile), text.Bytes(), 0o600)
}

// clientDir has the configuration of a shell at a terminal.
func (c *Cluster) clientDir() string { return filepath.Join(c.dir, "client") }

// writeConfiguration makes a Java process's directory with its configuration.
func (c *Cluster) writeConfiguration(dir string, layers ...map[string]string) error {
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return err
	}
	return writeProperties(filepath.Join(dir, "alluxio-site.properties"), layers...)
}

// javaCommand starts Java in the directory dir, which has its configuration; the arguments are more flags of Java, a
// class and what that gets.
func (c *Cluster) javaCommand(ctx context.Context, dir string, optimise bool, args ...string) *exec.Cmd {
	cmd := session.Command(ctx, c.java, append(c.javaFlags(dir, optimise), args...)...)
	cmd.Dir = dir
	// Java takes the names of files for what the locale says.
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	return cmd
}

// heap and direct bound a Java process's memory, in bytes, inside and outside of its heap.
func heap(n int64) string   { return "-Xmx" + strconv.FormatInt(n, 10) }
func direct(n int64) string { return "-XX:MaxDirectMemorySize=" + strconv.FormatInt(n, 10) }

// javaFlags are those of every Java process, whose directory is dir.
func (c *Cluster) javaFlags(dir string, optimise bool) []string {
	flags := []string{
		"-cp", filepath.Join(c.jars, "*"),
		"-Xshare:auto",
		// It would leave a file for each process that is killed.
		"-XX:-UsePerfData",
		"-Djava.io.tmpdir=" + filepath.Join(dir, "tmp"),
		"-Djava.net.preferIPv4Stack=true",
		"-Djdk.net.hosts.file=" + filepath.Join(c.dir, hostsFile),
		// The user's own Alluxio configuration is not for us.
		"-Duser.home=" + dir,
		"-Dalluxio.conf.dir=" + dir, "-Dalluxio.home=" + dir, "-Dalluxio.work.dir=" + dir, "-Dalluxio.logs.dir=" + dir,
		"-Dlog4j.configuration=file:" + filepath.Join(c.dir, serverLogging),
	}
	if !optimise {
		flags = append(flags, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
	}
	return append(flags, c.more...)
}

// Shell runs `alluxio fs` with the arguments to its end, and returns what it printed. Each command starts a Java
// process, which takes about a second.
func (c *Cluster) Shell(ctx context.Context, args ...string) (string, error) {
	return c.Client(ctx, nil, "alluxio.cli.fs.FileSystemShell", args...)
}

// Admin runs `alluxio fsadmin` with the arguments to its end, and returns what it printed.
func (c *Cluster) Admin(ctx context.Context, args ...string) (string, error) {
	return c.Client(ctx, nil, "alluxio.cli.fsadmin.FileSystemAdminShell", args...)
}

// Client runs the main class of one of Alluxio's clients with the arguments, under more properties where given: with
// alluxio.user.hostname of a worker's host it is local to that worker. The error has what the client said.
func (c *Cluster) Client(ctx context.Context, properties map[string]string, class string, args ...string) (
	string, error,
) {
	dir, err := os.MkdirTemp(c.dir, "shell-")
	if err != nil {
		return "", fmt.Errorf("a directory for the client: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := c.clientConfiguration(dir, properties); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, shellLimit)
	defer cancel()
	logging := "-Dlog4j.configuration=file:" + filepath.Join(c.dir, clientLogging)
	cmd := c.javaCommand(ctx, dir, c.cfg.Optimise, append([]string{heap(clientHeap), logging, class}, args...)...)
	out, err := session.RunCmd(ctx, cmd)
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = exit // without Java's command line
		}
		name := class[strings.LastIndexByte(class, '.')+1:]
		return out.Stdout, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err,
			strings.TrimSpace(out.Stdout+out.Stderr))
	}
	return out.Stdout, nil
}

// clientConfiguration writes the configuration of a client of the cluster.
func (c *Cluster) clientConfiguration(dir string, properties map[string]string) error {
	return c.writeConfiguration(dir, c.siteProperties(), c.cfg.Properties, properties)
}

// ShellCommand is `alluxio fs` against the cluster, as one types it at a terminal.
func (c *Cluster) ShellCommand() string {
	return fmt.Sprintf("LC_ALL=C.UTF-8 %s -cp '%s/*' -Dalluxio.conf.dir=%s alluxio.cli.fs.FileSystemShell", c.java,
		c.jars, c.clientDir())
}
