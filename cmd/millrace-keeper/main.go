// Command millrace-keeper has a mount of `millrace mount` outlive the process that serves it. It is started by
// millrace, and as small as it can be: there is one for each mount.
package main

import (
	"errors"
	"os"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/keeper"
)

func main() {
	order, err := keeper.Ordered()
	if order == nil && err == nil {
		err = errors.New("this program is started by millrace mount")
	}
	os.Exit(commandline.Tell(commandline.Keep(order, err), os.Stderr))
}
