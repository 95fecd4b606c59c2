package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
)

// The versions that are built.
const (
	kubernetesVersion = "1.34.4"
	etcdVersion       = "v3.6.15"
	corednsVersion    = "v1.14.0" // the last that is content with Kubernetes' own libraries of this version
)

// The programs, by the names of their binaries.
const (
	apiserver         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	kubectl           = "kubectl"
	etcd              = "etcd"
	scheduler         = "kube-scheduler"
	kubelet           = "kubelet"
	proxy             = "kube-proxy"
	coredns           = "coredns"
)

// place is the directory of the programs.
func place() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "millrace", "kube-"+kubernetesVersion), err
}

// Built reports whether all programs are there, so that no test has to wait for them.
func Built() bool {
	dir, err := place()
	return err == nil && len(missing(dir, []string{etcd, apiserver, kubectl, controllerManager})) == 0
}

// missing are the programs that are not in dir.
func missing(dir string, programs []string) []string {
	var not []string
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
			not = append(not, p)
		}
	}
	return not
}

// Binaries returns the directory of the programs, which it builds when they are not there: some minutes, once. Two
// processes that ask at once build once. The controllers' program is among them where it is asked for.
func Binaries(ctx context.Context, controllers bool) (string, error) {
	programs := []string{apiserver, kubectl}
	if controllers {
		programs = append(programs, controllerManager)
	}
	return isBuilt(func(dir string) error { return buildAPI(ctx, dir, programs) })
}

// NodeBinaries returns the directory of all that a cluster with nodes consists of, and builds what is not there: the
// programs of Binaries and the scheduler, kubelet, kube-proxy and a CoreDNS, some more minutes.
func NodeBinaries(ctx context.Context) (string, error) {
	return isBuilt(func(dir string) error {
		if err := buildAPI(ctx, dir, []string{
			apiserver, kubectl, controllerManager, scheduler, kubelet,
			proxy,
		}); err != nil {
			return err
		}
		return build(ctx, dir, []string{coredns}, corednsModule, "-s -w")
	})
}

// NodesBuilt reports whether NodeBinaries has nothing to build.
func NodesBuilt() bool {
	dir, err := place()
	return err == nil && Built() && len(missing(dir, []string{scheduler, kubelet, proxy, coredns})) == 0
}

// isBuilt has the programs made by one process at a time.
func isBuilt(build func(dir string) error) (string, error) {
	dir, err := place()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	return dir, build(dir)
}

// buildAPI makes etcd and programs of Kubernetes.
func buildAPI(ctx context.Context, dir string, programs []string) error {
	if err := build(ctx, dir, []string{etcd}, etcdModule, "-s -w"); err != nil {
		return err
	}
	return build(ctx, dir, programs, kubernetesModule, "-s -w -X k8s.io/component-base/version.gitVersion=v"+
		kubernetesVersion)
}

// build makes the programs that are missing in dir. module prepares a directory as a Go module that requires them, and
// tells their packages.
func build(ctx context.Context, dir string, programs []string,
	module func(context.Context, string) (func(string) string, error), ldflags string,
) error {
	if programs = missing(dir, programs); len(programs) == 0 {
		return nil
	}
	source, err := os.MkdirTemp("", "millrace-kube-build-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(source) }()
	packages, err := module(ctx, source)
	if err != nil {
		return err
	}
	out := filepath.Join(source, "bin")
	for _, program := range programs {
		if err := run(ctx, source, "build", "-mod=mod", "-trimpath", "-ldflags", ldflags, "-o",
			filepath.Join(out, program), packages(program)); err != nil {
			return err
		}
		if err := install(filepath.Join(out, program), filepath.Join(dir, program)); err != nil {
			return err
		}
	}
	return nil
}

// install puts a program into its place, whole or not at all.
func install(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return renameio.WriteFile(to, data, 0o700)
}

// run runs the go command in dir.
func run(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w: %s", args[0], err, tail(out.String()))
	}
	return nil
}

func tail(s string) string {
	const longest = 2000
	if len(s) > longest {
		return "..." + s[len(s)-longest:]
	}
	return s
}

func etcdModule(ctx context.Context, dir string) (func(string) string, error) {
	const main = "go.etcd.io/etcd/server/v3"
	if err := write(dir, "go.mod", "module build\n\ngo 1.26.0\n"); err != nil {
		return nil, err
	}
	if err := write(dir, "tools.go", "//go:build tools\n\npackage build\n\nimport _ \""+main+"\"\n"); err != nil {
		return nil, err
	}
	return func(string) string { return main }, run(ctx, dir, "get", main+"@"+etcdVersion)
}

var (
	replacements = regexp.MustCompile(`(?ms)^replace \(.*?^\)\n`)
	moduleLine   = regexp.MustCompile(`(?m)^module .*$`)
	// Not the pseudo-versions, which begin with the same.
	staging = regexp.MustCompile(`(?m)(k8s\.io/[a-z0-9-]*) v0\.0\.0( |$)`)
)

// kubernetesModule takes over the go.mod of Kubernetes: it cannot be required as it is, because it requires its parts
// at v0.0.0 and replaces them by its own directories.
func kubernetesModule(ctx context.Context, dir string) (func(string) string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes@v"+kubernetesVersion)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("download of Kubernetes: %w: %s", err, tail(string(out)))
	}
	var module struct{ GoMod string }
	if err := json.Unmarshal(out, &module); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(module.GoMod)
	if err != nil {
		return nil, err
	}
	text = replacements.ReplaceAll(text, nil)
	text = moduleLine.ReplaceAll(text, []byte("module build"))
	text = staging.ReplaceAll(text, []byte("${1} v0."+strings.TrimPrefix(kubernetesVersion, "1.")+"${2}"))
	text = append(text, "require k8s.io/kubernetes v"+kubernetesVersion+"\n"...)
	if err := write(dir, "go.mod", string(text)); err != nil {
		return nil, err
	}
	packageOf := func(program string) string { return "k8s.io/kubernetes/cmd/" + program }
	var tools strings.Builder
	tools.WriteString("//go:build tools\n\npackage build\n\nimport (\n")
	for _, p := range []string{apiserver, controllerManager, kubectl, scheduler, kubelet, proxy} {
		tools.WriteString("\t_ \"" + packageOf(p) + "\"\n")
	}
	return packageOf, write(dir, "tools.go", tools.String()+")\n")
}

// corednsModule is CoreDNS with the plugins that a cluster for tests needs, a tenth of the whole. A plugin that a
// configuration names and that is not compiled in stops it.
func corednsModule(ctx context.Context, dir string) (func(string) string, error) {
	const main = "github.com/coredns/coredns"
	var program strings.Builder
	program.WriteString("package main\n\nimport (\n\t\"" + main + "/coremain\"\n")
	for _, plugin := range []string{"bind", "cache", "errors", "hosts", "kubernetes", "log", "ready", "template"} {
		program.WriteString("\t_ \"" + main + "/plugin/" + plugin + "\"\n")
	}
	program.WriteString(")\n\nfunc main() { coremain.Run() }\n")
	if err := write(dir, "main.go", program.String()); err != nil {
		return nil, err
	}
	if err := write(dir, "go.mod", "module build\n\ngo 1.26.0\n"); err != nil {
		return nil, err
	}
	return func(string) string { return "." },
		run(ctx, dir, "get", main+"@"+corednsVersion, "k8s.io/client-go@v0."+
			strings.TrimPrefix(kubernetesVersion, "1."))
}

func write(dir, name, text string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
}
