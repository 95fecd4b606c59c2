package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/mountpoint"
)

const warmAbout = `Fetches the files at and below each PATH, which lies in a millrace mount, into the cache
of that mount, with a progress bar on a terminal and a line a second elsewhere. Ctrl-C
stops it; what has come stays cached. -o json is the progress as a JSON object a line, as
POST /v1/warm on the mount's socket.`

func warmCommand() *command.Command {
	f := command.New("warm", "[--jobs N] [-o text|json] PATH...", "fetch files into the cache before they are read",
		warmAbout)
	jobs, format := agent.DefaultWarmJobs, ""
	f.Format(&format)
	command.Parsed(f, &jobs, "jobs", "`N` files fetched at once", "4", commandline.CountTo(agent.MaxWarmJobs))
	f.Runs(func(paths []string, out io.Writer) error {
		if len(paths) == 0 {
			return f.Wrong("warm takes at least one PATH in a millrace mount")
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		var failed error
		for _, p := range paths {
			// What fails below one path is no reason to leave out the next.
			if failed = errors.Join(failed, warm(ctx, p, jobs, format, out)); ctx.Err() != nil {
				break
			}
		}
		return failed
	})
	return f
}

// warm fetches one path and shows how it goes.
func warm(ctx context.Context, arg string, jobs int, format string, out io.Writer) error {
	path, err := resolve(arg)
	if err != nil {
		return err
	}
	client, err := clientOf(path)
	if err != nil {
		return err
	}
	defer client.Close()
	show := newProgress(out, format)
	last := agent.WarmProgress{}
	final, err := client.Warm(ctx, agent.WarmRequest{Path: path, Jobs: jobs}, func(p agent.WarmProgress) {
		last = p
		show.update(p)
	})
	show.clear()
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("stopped: %s of %s are cached", commandline.FormatSize(last.BytesDone),
			commandline.FormatSize(last.BytesTotal))
	case err != nil:
		return err
	}
	show.summary(final)
	return incomplete(final)
}

// incomplete says what of a tree is not cached, nil where all of it is.
func incomplete(w agent.WarmProgress) error {
	var parts []string
	if w.FilesFailed > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d files could not be fetched", w.FilesFailed, w.FilesTotal))
	}
	if w.DirsFailed > 0 {
		named := strings.Join(w.FailedDirs, ", ")
		if more := w.DirsFailed - int64(len(w.FailedDirs)); more > 0 {
			named += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, fmt.Sprintf("%s could not be listed (%s)", directories(w.DirsFailed), named))
	}
	switch {
	case len(parts) > 0:
		return fmt.Errorf("%s; the first failed because of: %s", strings.Join(parts, ", and "), w.Error)
	case w.Error != "":
		return errors.New(w.Error)
	}
	return nil
}

func directories(n int64) string {
	if n == 1 {
		return "1 directory"
	}
	return fmt.Sprintf("%d directories", n)
}

// resolve gives the path without symbolic links, as far as it exists: what does not may
// still be a file that the mount has not heard of.
func resolve(arg string) (string, error) {
	abs, err := filepath.Abs(arg)
	if err != nil {
		return "", fmt.Errorf("%s: %w", arg, err)
	}
	for known, rest := abs, ""; ; known, rest = filepath.Dir(known), filepath.Join(filepath.Base(known), rest) {
		resolved := ""
		err := mountpoint.Within(known, func() (err error) {
			resolved, err = filepath.EvalSymlinks(known)
			return err
		})
		if err == nil {
			return filepath.Join(resolved, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || known == filepath.Dir(known) {
			return "", fmt.Errorf("%s cannot be looked at: %w", abs, err)
		}
	}
}

// clientOf gives a client of the process that serves the mount which path lies in.
func clientOf(path string) (*agent.Client, error) {
	dir, fstype, _, err := mountpoint.Of(path)
	for known := path; errors.Is(err, fs.ErrNotExist) && known != filepath.Dir(known); {
		known = filepath.Dir(known)
		dir, fstype, _, err = mountpoint.Of(known)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case fstype != mountpoint.FSType:
		return nil, fmt.Errorf("%s is not in a millrace mount", path)
	}
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return nil, err
	}
	entry, listed, err := agent.OpenRegistry(runtime).Find(dir)
	switch {
	case err != nil:
		return nil, err
	case !listed:
		if path, answers := nodeAgent(runtime); answers {
			return agent.Dial(path), nil
		}
		return nil, fmt.Errorf("the mount on %s is not in %s: it was made by another user, or with another "+
			"$MILLRACE_RUNTIME_DIR", dir, runtime)
	case entry.Dead:
		return nil, fmt.Errorf("the process that served the mount on %s has gone; millrace unmount %s cleans up", dir,
			dir)
	}
	return agent.Dial(entry.Socket), nil
}
