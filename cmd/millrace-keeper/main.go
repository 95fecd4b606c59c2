// Command millrace-keeper has a mount of `millrace mount` outlive the process that serves it. It is started by
// millrace, and as small as it can be: there is one for each mount.
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
	if order == nil && err == nil {
		err = errors.New("this program is started by millrace mount")
	}
	os.Exit(commandline.Tell(commandline.Keep(order, err), os.Stderr))
}
