package images

import (
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"millrace.io/millrace/deploy/image/layer"
	"millrace.io/millrace/sanity/cluster"
)

const architecture = runtime.GOARCH

// libraryDir is where Debian keeps libraries.
const libraryDir = "/usr/lib/x86_64-linux-gnu"

// What the stock image has of the same names.
var (
	//go:embed alluxio.sh
	alluxioCommand string
	//go:embed entrypoint.sh
	alluxioEntrypoint string
)

// alluxioLog has the loggers write to the container's log.
const alluxioLog = `log4j.rootLogger=INFO, A
log4j.appender.A=org.apache.log4j.ConsoleAppender
log4j.appender.A.target=System.err
log4j.appender.A.layout=org.apache.log4j.PatternLayout
log4j.appender.A.layout.ConversionPattern=%d{ISO8601} %-5p %c{1} - %m%n
`

// alluxio has Alluxio's jars from Maven, this machine's Java runtime, and of the stock image's commands those that
// people and the controller's pods use. The jars are of the version in sanity/cluster/pom.xml: of the one that the
// chart names, the last with a public image, Maven has none.
func alluxio(ctx context.Context) (plan, error) {
	jars, err := cluster.Jars(ctx)
	if err != nil {
		return plan{}, err
	}
	base, err := gnuShell(ctx)
	if err != nil {
		return plan{}, err
	}
	runtime, home, err := javaRuntime(ctx)
	if err != nil {
		return plan{}, err
	}
	own, err := layer.Tree(jars, "/opt/alluxio/lib", func(string) bool { return true })
	own = append(own,
		layer.Text("/opt/alluxio/bin/alluxio", 0o755, alluxioCommand),
		layer.Text("/entrypoint.sh", 0o755, alluxioEntrypoint),
		layer.Text("/opt/alluxio/conf/log4j.properties", 0o644, alluxioLog),
		layer.Text("/opt/alluxio/conf/log4j-client.properties", 0o644, strings.Replace(alluxioLog, "INFO", "FATAL", 1)),
		layer.Dir("/opt/alluxio/logs", 0o777))
	return plan{
		config: v1.Config{
			Entrypoint: []string{"/entrypoint.sh"}, WorkingDir: "/opt/alluxio",
			Env: []string{path, "JAVA_HOME=" + home, "LC_ALL=C.UTF-8"},
		},
		layers: [][]layer.File{base, runtime, own},
	}, err
}

// gnuShell has, as the stock image does, GNU's commands where the controller's pods need their options.
func gnuShell(ctx context.Context) ([]layer.File, error) {
	var files []layer.File
	for _, name := range []string{"rm", "rmdir"} {
		path, err := found(name)
		if err != nil {
			return nil, err
		}
		command, err := withLibraries(ctx, path)
		if err != nil {
			return nil, err
		}
		files = append(append(files, layer.Copy("/bin/"+name, 0o755, path)), command...)
	}
	base, err := shell(ctx)
	// Of two with one path the first counts.
	return append(files, base...), err
}

// javaRuntime is this machine's, without what servers do not need, and its libraries.
func javaRuntime(ctx context.Context) (files []layer.File, home string, err error) {
	java, err := cluster.Java()
	if err != nil {
		return nil, "", err
	}
	if java, err = filepath.EvalSymlinks(java); err != nil {
		return nil, "", err
	}
	home = filepath.Dir(filepath.Dir(java))
	files, err = layer.Tree(home, home, func(p string) bool {
		name := filepath.Base(p)
		for _, not := range []string{"xawt", "splash", "jawt", "ct.sym", "src.zip", ".debuginfo", "atk-wrapper"} {
			if strings.Contains(name, not) {
				return false
			}
		}
		top, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		return top == "lib" || top == "conf" || top == "release" || p == "/bin" || p == "/bin/java"
	})
	if err != nil {
		return nil, "", err
	}
	// The runtime's configuration is links to there.
	etc, err := layer.Tree("/etc/java-17-openjdk", "/etc/java-17-openjdk", func(string) bool { return true })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	programs := []string{java}
	for _, f := range files {
		if f.From != "" && strings.HasSuffix(f.From, ".so") {
			programs = append(programs, f.From)
		}
	}
	libraries, err := withLibraries(ctx, programs...)
	if err != nil {
		return nil, "", err
	}
	// Libraries within jars, such as RocksDB's, want these, which ldd cannot see.
	for _, l := range []string{
		"libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1",
		"libm.so.6",
	} {
		more, err := withLibraries(ctx, filepath.Join(libraryDir, l))
		if err != nil {
			return nil, "", err
		}
		libraries = append(libraries, more...)
	}
	files = append(append(files, etc...), libraries...)
	return append(files, layer.Link("/usr/bin/java", java)), home, nil
}
