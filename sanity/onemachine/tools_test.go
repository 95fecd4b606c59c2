package onemachine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// toolsTree is a tree with text to grep for, files around the sizes of pages and blocks, empty files
// and directories, and names that a shell or a URL could trip over.
func toolsTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for i, size := range []int{0, 1, 4095, 4096, 4097, 131072, 1<<20 + 1, 9<<20 + 13} {
		write(t, root, fmt.Sprintf("sizes/%d.bin", size), random(byte(i), size))
	}
	for i := range 120 {
		text := fmt.Sprintf("line one of %d\nneedle-%d in the hay\nlast line\n", i, i%7)
		write(t, root, fmt.Sprintf("text/%02d/file %d.txt", i%10, i), []byte(text))
	}
	write(t, root, "text/100% #1?.txt", []byte("needle-x\n"))
	if err := os.Mkdir(filepath.Join(root, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestTools reads a mounted tree with each tool, once cold and once warm, and the second time without a
// byte from the source.
func TestTools(t *testing.T) {
	needsMount(t)
	t.Parallel()
	source := toolsTree(t)
	for _, tool := range []struct {
		name string
		use  func(t *testing.T, r *rig, out string)
	}{
		{"cp", func(t *testing.T, r *rig, out string) {
			t.Helper()
			r.run("", "cp", "-r", r.dir, out)
			sameTree(t, source, out)
		}},
		{"tar", func(t *testing.T, r *rig, out string) {
			t.Helper()
			archive := out + ".tar"
			r.run("", "tar", "-C", r.dir, "-cf", archive, ".")
			if err := os.Mkdir(out, 0o755); err != nil {
				t.Fatal(err)
			}
			r.run("", "tar", "-C", out, "-xf", archive)
			sameTree(t, source, out)
		}},
		{"rsync", func(t *testing.T, r *rig, out string) {
			t.Helper()
			r.run("", "rsync", "-rt", r.dir+"/", out+"/")
			sameTree(t, source, out)
			if changes := r.run("", "rsync", "-rtin", r.dir+"/", out+"/"); changes != "" {
				t.Errorf("a second rsync would copy again:\n%s", changes)
			}
		}},
		{"grep", func(t *testing.T, r *rig, _ string) {
			t.Helper()
			const script = `grep -r needle- . | sort`
			sameOutput(t, r, source, "sh", "-c", script)
		}},
		{"sha256sum", func(t *testing.T, r *rig, _ string) {
			t.Helper()
			const script = `find . -type f -print0 | sort -z | xargs -0 sha256sum`
			sameOutput(t, r, source, "sh", "-c", script)
		}},
		{"du", func(t *testing.T, r *rig, _ string) {
			t.Helper()
			const script = `find . -type f -print0 | sort -z | xargs -0 du -b`
			sameOutput(t, r, source, "sh", "-c", script)
		}},
	} {
		t.Run(tool.name, func(t *testing.T) {
			needs(t, tool.name)
			r := newRig(t, source)
			outs := t.TempDir()
			tool.use(t, r, filepath.Join(outs, "cold"))
			before := r.server.Stats()
			tool.use(t, r, filepath.Join(outs, "warm"))
			if sent := r.server.Stats().Sub(before).BodyBytes; sent > 0 {
				t.Errorf("the second time took %d bytes from the source", sent)
			}
			r.unmount()
		})
	}
}

// sameOutput runs a command in the source and in the mount: they must print the same, and something.
func sameOutput(t *testing.T, r *rig, source, name string, args ...string) {
	t.Helper()
	want := r.run(source, name, args...)
	if strings.TrimSpace(want) == "" {
		t.Fatalf("%s %v prints nothing in the source", name, args)
	}
	if got := r.run(r.dir, name, args...); got != want {
		t.Errorf("%s %v prints in the mount\n%s\nand in the source\n%s", name, args, got, want)
	}
}

const mapScript = `
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    print(m[len(m) // 2], hashlib.sha256(m).hexdigest())
`

const sendfileScript = `
import os, sys
with open(sys.argv[1], "rb") as src, open(sys.argv[2], "wb") as dst:
    left, at = os.fstat(src.fileno()).st_size, 0
    while left:
        n = os.sendfile(dst.fileno(), src.fileno(), at, left)
        if n == 0:
            sys.exit("sendfile ended early")
        left, at = left - n, at + n
`

// TestMappedAndSent reads by mmap and by sendfile, cold and warm.
func TestMappedAndSent(t *testing.T) {
	needsMount(t)
	t.Parallel()
	needs(t, "python3")
	source := t.TempDir()
	write(t, source, "map.bin", random(1, 17<<20+5))
	write(t, source, "send.bin", random(2, 11<<20+3))
	for _, mode := range []string{"passthrough", "copy"} {
		t.Run(mode, func(t *testing.T) {
			var flags []string
			if mode == "copy" {
				flags = []string{"--no-passthrough"}
			}
			r := newRig(t, source, flags...)
			for range 2 {
				sameOutput(t, r, source, "python3", "-c", mapScript, "map.bin")
				out := filepath.Join(t.TempDir(), "sent")
				r.run("", "python3", "-c", sendfileScript, filepath.Join(r.dir, "send.bin"), out)
				got, err := os.ReadFile(out)
				if err != nil || string(got) != string(random(2, 11<<20+3)) {
					t.Errorf("sendfile of %d bytes: not the file (%v)", len(got), err)
				}
			}
			r.unmount()
		})
	}
}

// TestRunFromTheMount runs programs that are in the mount.
func TestRunFromTheMount(t *testing.T) {
	needsMount(t)
	t.Parallel()
	source := t.TempDir()
	content, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	write(t, source, "bin/millrace", content)
	write(t, source, "bin/greet", []byte("#!/bin/sh\necho hello $1\n"))
	r := newRig(t, source, "--file-mode", "0555")
	for range 2 {
		if got := r.run("", filepath.Join(r.dir, "bin", "greet"), "you"); got != "hello you\n" {
			t.Errorf("the script says %q", got)
		}
		if got := r.run("", filepath.Join(r.dir, "bin", "millrace"), "--help"); !strings.Contains(got, "mount") {
			t.Errorf("the program says %q", got)
		}
	}
	r.unmount()
}

// TestGitClone clones a bare repository that is in the mount.
func TestGitClone(t *testing.T) {
	needs(t, "git")
	needsMount(t)
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_SYSTEM": os.DevNull,
		"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com",
		"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
		"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
	} {
		t.Setenv(name, value)
	}
	source := t.TempDir()
	work := filepath.Join(t.TempDir(), "work")
	r := newRig(t, source)
	r.run("", "git", "init", "-q", "-b", "main", work)
	for i := range 20 {
		write(t, work, fmt.Sprintf("dir %d/file.bin", i), random(byte(i), 1000*i))
		r.run(work, "git", "add", "-A")
		r.run(work, "git", "commit", "-q", "-m", fmt.Sprintf("commit %d", i))
	}
	r.run("", "git", "clone", "-q", "--bare", work, filepath.Join(source, "repository.git"))
	// As files that are copied, the default for a path, and through git's own protocol.
	for _, how := range []string{"--progress", "--no-local"} {
		clone := filepath.Join(t.TempDir(), "clone")
		r.run("", "git", "clone", "-q", how, filepath.Join(r.dir, "repository.git"), clone)
		if want, got := r.run(work, "git", "log", "--format=%H"), r.run(clone, "git", "log", "--format=%H"); got != want {
			t.Errorf("git clone %s: the history is\n%s\nnot\n%s", how, got, want)
		}
		r.run(clone, "git", "fsck", "--full")
		r.run(clone, "git", "diff", "--exit-code", "HEAD")
	}
	r.unmount()
}
