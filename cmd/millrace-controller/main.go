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

	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/controller"
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
	return f.Program()
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
	var err error
	if c.controller.API, err = apiServer(c.kubeconfig); err != nil {
		return err
	}
	c.controller.API.UserAgent = "millrace-controller/" + commandline.ReadBuild().Version
	if k := &c.controller; k.NetworkDir != "" {
		if _, err := network.Read(k.NetworkDir); err != nil {
			return err
		}
	}
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
	f := command.New("controller", "[flags]", "make Datasets of Kubernetes into caches, volumes and claims",
		controllerAbout)
	f.ValidArgsFunction = cobra.NoFileCompletions
	f.Text(&c.kubeconfig, "kubeconfig", "`FILE` that says where the API server is")
	command.Parsed(f, &k.Settings.Namespace, "namespace", "`NAME` of the namespace in which controllers and agents run",
		k.Settings.Namespace, parseNamespace)
	command.Parsed(f, &k.Watch, "watch-namespace", "`NAME` of the only namespace to serve", "all", parseNamespace)
	f.Toggle(&k.Elect, "leader-elect", "agree with other controllers on one that works; on where it is not said")
	f.Text(&k.Settings.AlluxioImage, "alluxio-image", "`IMAGE` of Alluxio where a runtime names none")
	f.Text(&k.Settings.MillraceImage, "millrace-image", "`IMAGE` of this program, for gateways")
	command.Parsed(f, &k.Settings.Driver, "driver", "`NAME` of the CSI driver", k.Settings.Driver, parseDriver)
	f.Toggle(&k.Settings.QualifiedVolumes, "qualified-volumes",
		"call new PersistentVolumes NAMESPACE-NAME in the namespace default, too")
	f.Text(&k.NetworkDir, "network-dir",
		"`DIR` with what gateways use where a Dataset says nothing: ca.crt, HTTPS_PROXY, HTTP_PROXY, NO_PROXY")
	command.Parsed(f, &k.Taint, "startup-taint", "`KEY` of the taint that nodes lose when the driver is ready there",
		"none", parseTaint)
	command.Parsed(f, &k.Agents, "agents",
		"`HOST:PORT` of the agents' Service, which tell of pods that lost their mount", "none", parseAgents)
	command.Parsed(f, &k.Settings.TierDirs, "tier-dirs",
		"`DIR,...` of nodes in which agents open the files of tiers, to say which of them they do not", "not known",
		parseDirs)
	command.Parsed(f, &k.Health, "health", "`[HOST]:PORT` of /healthz and /readyz; none is no listener", k.Health,
		parseAddress)
	command.Parsed(f, &k.Metrics, "metrics", "`[HOST]:PORT` of /metrics; none is no listener", k.Metrics, parseAddress)
	f.Logging(&c.logLevel, &c.logFormat)
	return f, c
}
