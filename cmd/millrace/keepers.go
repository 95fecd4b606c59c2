package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/keeping"
)

// keeperOf tells of the keeper of a mount whose process does not say so itself, by what the registry has; nil where it
// has none.
func keeperOf(e agent.Entry) *agent.Keeper {
	if e.Keeper == 0 {
		return nil
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(e.PID) + "/stat")
	_, parent, _ := readStat(text)
	if err != nil {
		// Its process has gone, and the keeper replaces it, unless it has gone itself.
		if syscall.Kill(e.Keeper, 0) == nil {
			parent = e.Keeper
		}
	}
	k := &agent.Keeper{PID: e.Keeper, Keeps: parent == e.Keeper}
	if !k.Keeps {
		k.Problem = agent.KeeperGone
	}
	return k
}

// keeperBeside is the socket of the keeper of a node whose agent answers on a socket, "" where this is no such node.
func keeperBeside(socket string) string {
	path := filepath.Join(filepath.Dir(socket), "keeper", "keeper.sock")
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return ""
	}
	return path
}

// askKeeper completes the mounts of a server by what the keeper beside it keeps. Mounts that tell of a keeper of their
// own are left as they are.
func askKeeper(ctx context.Context, socket string, mounts []agent.MountStatus) {
	path := ""
	for i := range mounts {
		if mounts[i].Keeper == nil {
			path = keeperBeside(socket)
			break
		}
	}
	if path == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	kept, err := keeping.Dial(path).List(ctx)
	names := make(map[string]bool, len(kept))
	for _, k := range kept {
		names[agent.MountName(k.ID)] = true
	}
	for i := range mounts {
		if mounts[i].Keeper == nil {
			mounts[i].Keeper = keeperOfNode(path, names[mounts[i].Name], err)
		}
	}
}

// keeperOfNode is a node's keeper, which keeps a mount or does not, or gave the error.
func keeperOfNode(path string, keeps bool, err error) *agent.Keeper {
	k := &agent.Keeper{Socket: path, Keeps: keeps}
	switch {
	case err != nil:
		k.Problem = fmt.Sprintf("it does not answer: %v", err)
	case !keeps:
		k.Problem = "it does not have the mount yet"
	}
	return k
}

// nameOf is the keeper in a cell of a table.
func nameOf(k *agent.Keeper) string {
	switch {
	case k == nil || !k.Keeps:
		return "none"
	case k.PID != 0:
		return "pid " + strconv.Itoa(k.PID)
	}
	return k.Socket
}
