// Command millrace-keeper has mounts outlive the processes that serve them, and is as small as it can be. Started by
// `millrace mount` it keeps that mount, and there is one for each; on a node of Kubernetes it keeps the connections of
// all volumes beside driver and agent: millrace-keeper --socket PATH.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/keeper"
)

func main() {
	if len(os.Args) == 2 && strings.TrimLeft(os.Args[1], "-") == "version" {
		fmt.Println(commandline.ReadBuild().Line("millrace-keeper"))
		return
	}
	order, err := keeper.Ordered()
	switch {
	case order == nil && err == nil && len(os.Args) > 1:
		err = keepNode(os.Args[1:])
	case order == nil && err == nil:
		err = errors.New("this program is started by millrace mount, or on a node with --socket PATH")
	default:
		err = commandline.Keep(order, err)
	}
	os.Exit(commandline.Tell(err, os.Stderr))
}
