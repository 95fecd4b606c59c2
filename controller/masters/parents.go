package masters

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// parentsNote names the note at Alluxio's root of the directories that were made for mounts, a line each: those
	// that mounts are in, and those of mounts themselves. They stay noted when they are gone, since another master may
	// have them in its own root. D-267 says why.
	parentsNote = "millrace.parents"
	// mostParents bounds them.
	mostParents = 512
)

// parents are the directories that were made for mounts and that no source has.
type parents struct {
	conn *rpc.Cluster
	root *wire.FileInfo
	made []string
}

// readParents reads which were made.
func readParents(ctx context.Context, conn *rpc.Cluster) (*parents, error) {
	root, err := conn.Status(ctx, "/", rpc.NeverSync)
	if err != nil {
		return nil, err
	}
	return &parents{conn: conn, root: root, made: notedIn(root.GetXattr()[parentsNote])}, nil
}

// notedIn are the directories of a note. Others may write it: what is no directory below the root is none.
func notedIn(note []byte) []string {
	var dirs []string
	for dir := range strings.SplitSeq(string(note), "\n") {
		if strings.HasPrefix(dir, "/") && len(dir) > 1 && len(dirs) < mostParents {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// sweep removes directories that are left over. One that is not empty is in use, and stays.
func (p *parents) sweep(ctx context.Context, left []string) error {
	var errs []error
	for _, dir := range left {
		if err := p.remove(ctx, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("the directory %s, in which no mount is any more: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// remove removes a directory of Alluxio's own root, with the directories in it, where no file is in any of them. Of a
// source it removes nothing.
func (p *parents) remove(ctx context.Context, dir string) error {
	info, err := p.conn.Status(ctx, dir, rpc.NeverSync)
	if err != nil || !p.isOwn(info) {
		return err
	}
	if !isEmpty(info) {
		// Where a mount was taken away while it was read, files of it are known still. Its root has none of them.
		if err := p.conn.Load(ctx, dir, rpc.AlwaysSync); err != nil {
			return err
		}
		if err := p.removeIn(ctx, dir); err != nil {
			return err
		}
		if info, err = p.conn.Status(ctx, dir, rpc.NeverSync); err != nil || !isEmpty(info) {
			return err
		}
	}
	return p.conn.RemoveDir(ctx, dir)
}

// removeIn removes the directories in a directory.
func (p *parents) removeIn(ctx context.Context, dir string) error {
	var dirs []string
	again := func() error {
		dirs = nil
		return nil
	}
	err := p.conn.Names(ctx, dir, rpc.NeverSync, again, func(f *wire.FileInfo) error {
		if f.GetFolder() {
			dirs = append(dirs, dir+"/"+f.GetName())
		}
		return nil
	})
	for i := 0; err == nil && i < len(dirs); i++ {
		err = p.remove(ctx, dirs[i])
	}
	return err
}

// isOwn reports whether it is a directory in Alluxio's own root, in no mount and none itself.
func (p *parents) isOwn(info *wire.FileInfo) bool {
	return info.GetFolder() && !info.GetMountPoint() && info.GetMountId() == p.root.GetMountId()
}

// isEmpty reports whether a directory has no entries: its length is their number.
func isEmpty(dir *wire.FileInfo) bool { return dir.GetLength() == 0 }

// clear has Alluxio's own root have nothing where a mount is to be made. Where a source has something Alluxio refuses
// the mount, and says so.
func (p *parents) clear(ctx context.Context, path string, mounts []string) error {
	if slices.ContainsFunc(mounts, func(m string) bool { return within(m, path) || within(path, m) }) {
		return nil
	}
	if err := p.remove(ctx, path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// make makes the directories that a mount is in, where they are not there. mounts are all that are there by then.
func (p *parents) make(ctx context.Context, path string, mounts []string) error {
	around := ""
	for _, dir := range above(path) {
		if slices.Contains(mounts, dir) {
			around = dir
			continue
		}
		info, err := p.conn.Status(ctx, dir, rpc.AlwaysSync)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err == nil && !info.GetFolder():
			return fmt.Errorf("%s is a file", dir)
		case around != "" && (err != nil || !info.GetPersisted()):
			return fmt.Errorf("the source of the mount %s has no directory %s, and nothing is written to sources; "+
				"make it there, or give this mount a path that is not in %[1]s",
				around, strings.TrimPrefix(dir, around))
		case err == nil:
			continue
		}
		if err := p.note(ctx, dir); err != nil {
			return err
		}
		if err := p.conn.MakeDir(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// note notes a directory that is about to be made, or has been for a mount.
func (p *parents) note(ctx context.Context, dir string) error {
	if slices.Contains(p.made, dir) {
		return nil
	}
	made := append(slices.Clone(p.made), dir)
	made = made[max(len(made)-mostParents, 0):]
	if err := p.conn.SetNote(ctx, "/", parentsNote, []byte(strings.Join(made, "\n"))); err != nil {
		return err
	}
	p.made = made
	return nil
}
