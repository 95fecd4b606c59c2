package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/sanity/session"
)

// fuseLimit bounds the mounting of Alluxio's FUSE.
const fuseLimit = 60 * time.Second

// FuseConfig says how Alluxio's own FUSE client mounts. The zero value is what its documentation advises for reading
// data that does not change: the kernel keeps pages and names, the client keeps metadata and its threads, and a read
// sets no access time.
type FuseConfig struct {
	// Path is the directory of Alluxio to mount; "" is the root.
	Path string
	// Options are the mount options; nil is the advised ones.
	Options []string
	// Host is the client's own host name, which makes it local to the worker of that host; "" is local to none.
	Host string
	// Properties are more properties of the client.
	Properties map[string]string
	// Heap and Direct bound the memory inside and outside of the heap, in bytes; 0 is 4 GiB each, as advised.
	Heap, Direct int64
}

// Fuse is a mount of Alluxio's own FUSE client.
type Fuse struct {
	dir  string
	log  string
	proc *process
}

// Fuse mounts the cluster on the directory by Alluxio's own FUSE client, and returns when it can be listed. It is
// unmounted with the cluster at the latest.
func (c *Cluster) Fuse(ctx context.Context, dir string, cfg FuseConfig) (*Fuse, error) {
	if reason := session.CanMount(); reason != "" {
		return nil, fmt.Errorf("the FUSE of Alluxio %s: %w", reason, ErrMissing)
	}
	if libfuse() == "" {
		return nil, fmt.Errorf("libfuse3.so.3 (package fuse3 or libfuse3-3), which the FUSE of Alluxio loads, is %w",
			ErrMissing)
	}
	orInt(&cfg.Heap, 4096*mib)
	orInt(&cfg.Direct, 4096*mib)
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	if cfg.Options == nil {
		cfg.Options = []string{"ro", "kernel_cache", "attr_timeout=7200", "entry_timeout=7200"}
		if libfuse() == "3" {
			cfg.Options = append(cfg.Options, "max_idle_threads=64")
		}
	}
	f := &Fuse{dir: dir, log: filepath.Join(c.dir, "fuse-"+strconv.FormatInt(time.Now().UnixNano(), 36)+".log")}
	if err := c.startFuse(f, cfg); err != nil {
		return nil, fmt.Errorf("the FUSE of Alluxio: %w", err)
	}
	if err := f.wait(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the FUSE of Alluxio on %s: %w: %s", dir, err, cause(f.log)), f.Stop())
	}
	return f, nil
}

// libfuse finds which libfuse Alluxio's native libraries can load here: "3" or "2", and "" for neither.
func libfuse() string {
	for _, version := range []struct{ name, library string }{{"3", "libfuse3.so.3"}, {"2", "libfuse.so.2"}} {
		for _, dir := range []string{
			"/lib", "/lib64", "/lib/*-linux-gnu", "/usr/lib", "/usr/lib64",
			"/usr/lib/*-linux-gnu",
		} {
			if found, err := filepath.Glob(filepath.Join(dir, version.library)); err == nil && len(found) > 0 {
				return version.name
			}
		}
	}
	return ""
}

// startFuse starts the process, and has the cluster own it.
func (c *Cluster) startFuse(f *Fuse, cfg FuseConfig) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return errors.New("the cluster is stopped")
	}
	home := strings.TrimSuffix(f.log, ".log")
	properties := map[string]string{
		"alluxio.fuse.jnifuse.libfuse.version":         libfuse(),
		"alluxio.fuse.mount.point":                     f.dir,
		"alluxio.fuse.mount.alluxio.path":              cfg.Path,
		"alluxio.user.update.file.accesstime.disabled": "true",
		"alluxio.user.metadata.cache.enabled":          "true",
		"alluxio.user.metadata.cache.max.size":         "1000000",
		"alluxio.user.metadata.cache.expiration.time":  "2h",
	}
	if cfg.Host != "" {
		properties["alluxio.user.hostname"] = cfg.Host
		properties["alluxio.locality.node"] = cfg.Host
	}
	maps.Copy(properties, cfg.Properties)
	if err := c.clientConfiguration(home, properties); err != nil {
		return err
	}
	if err := c.janitor.Mounted(f.dir); err != nil {
		return err
	}
	cmd := c.javaCommand(context.Background(), home, true, heap(cfg.Heap), direct(cfg.Direct),
		"alluxio.fuse.AlluxioFuse", "-m", f.dir, "-a", cfg.Path, "-o", strings.Join(cfg.Options, ","))
	var err error
	if f.proc, err = launch(cmd, f.log); err != nil {
		return err
	}
	c.mounts = append(c.mounts, f)
	return nil
}

// wait waits until the mount is there and answers.
func (f *Fuse) wait(ctx context.Context) error {
	if err := session.WaitMounted(ctx, f.dir, fuseLimit, f.proc.ended); err != nil {
		return err
	}
	_, err := session.Run(ctx, fuseLimit, "stat", "--", f.dir)
	return err
}

// Pid is the id of the Java process.
func (f *Fuse) Pid() int { return f.proc.pid() }

// RSS is the resident memory of the Java process in bytes.
func (f *Fuse) RSS() int64 { return residentBytes(f.Pid()) }

// Log is the path of the file that the client logs to.
func (f *Fuse) Log() string { return f.log }

// Stop unmounts and ends the process. It may be called twice.
func (f *Fuse) Stop() error {
	session.Detach(f.dir)
	if session.Mounted(f.dir) {
		return errors.Join(fmt.Errorf("%s is still mounted", f.dir), f.proc.kill())
	}
	return f.proc.kill()
}
