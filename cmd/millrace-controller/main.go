// Command millrace-controller makes Datasets of Kubernetes into caches, volumes and claims: `millrace controller`
// becomes it.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/controller"
	"millrace.io/millrace/controller/nodes"
	"millrace.io/millrace/driver"
)

const controllerAbout = `Makes each Dataset with an AlluxioRuntime of its name into a highly available Alluxio, a PersistentVolume and a
PersistentVolumeClaim, and gives claims of StorageClasses with the driver's name their volumes. It runs once in a cluster, or in two copies of which one works.

Outside of a cluster --kubeconfig, or the environment variable KUBECONFIG, says where the API server is. A controller that is stopped,
killed or replaced leaves all that it made running.`

// What the controller's heap keeps to if it can, in bytes, and how much it may grow until garbage is collected, in
// percent: a thousand Datasets fit into 200 MB with the program itself.
const (
	controllerMemory = 120 << 20
	controllerGC     = 40
)

// controllerConfig is what the flags of controller say.
type controllerConfig struct {
	controller          controller.Config
	kubeconfig          string
	logLevel, logFormat string
}

func main() {
	os.Exit(commandline.Tell(command.Execute(controllerCommand().Command, os.Args[1:], os.Stdout), os.Stderr))
}

func controllerCommand() *command.Command {
	f, c := newController()
	f.Runs(func(rest []string, _ io.Writer) error {
		if len(rest) != 0 {
			return f.Wrong("controller takes no arguments, not %q", rest[0])
		}
		return c.run()
	})
	return f
}

// run works until a signal ends it.
func (c *controllerConfig) run() error {
	c.controller.Log = commandline.NewLog(os.Stderr, c.logLevel, c.logFormat)
	controller.SetLog(c.controller.Log)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(controllerMemory)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(controllerGC)
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	var err error
	if c.controller.API, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig(); err != nil {
		return err
	}
	c.controller.API.UserAgent = "millrace-controller/" + commandline.ReadBuild().Version
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return controller.Run(ctx, c.controller)
}

// newController makes the flags of controller, and what they fill in.
func newController() (*command.Command, *controllerConfig) {
	c := &controllerConfig{logLevel: "info", logFormat: "text"}
	k := &c.controller
	k.Settings.Driver, k.Settings.Namespace = driver.Name, "millrace-system"
	k.Settings.AlluxioImage, k.Settings.MillraceImage = "alluxio/alluxio:2.9.5", "millrace/millrace:latest"
	k.CheckClass = driver.CheckClass
	k.Health, k.Metrics, k.Elect = ":8081", ":8080", true
	f := command.New("controller", "[flags]", "make Datasets of Kubernetes into caches, volumes and claims", controllerAbout)
	f.ValidArgsFunction = cobra.NoFileCompletions
	f.Text(&c.kubeconfig, "kubeconfig", "`FILE` that says where the API server is")
	f.Text(&k.Settings.Namespace, "namespace", "`NAME` of the namespace in which controllers and agents run")
	f.Text(&k.Watch, "watch-namespace", "`NAME` of the only namespace to serve (default all)")
	f.Toggle(&k.Elect, "leader-elect", "agree with other controllers on one that works; on where it is not said")
	f.Text(&k.Settings.AlluxioImage, "alluxio-image", "`IMAGE` of Alluxio where a runtime names none")
	f.Text(&k.Settings.MillraceImage, "millrace-image", "`IMAGE` of this program, for gateways")
	f.Text(&k.Settings.Driver, "driver", "`NAME` of the CSI driver")
	command.Parsed(f, &k.Taint, "startup-taint", "`KEY` of the taint that nodes lose when the driver is ready there", "none", parseTaint)
	f.Text(&k.Health, "health", "`ADDRESS` of /healthz and /readyz")
	f.Text(&k.Metrics, "metrics", "`ADDRESS` of /metrics")
	f.Logging(&c.logLevel, &c.logFormat)
	return f, c
}

// parseTaint reads the key of a taint; "none" is none.
func parseTaint(s string) (string, error) {
	if s == "none" {
		return "", nil
	}
	return s, nodes.CheckTaint(s)
}
