package build

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/deploy/heartbeat"
)

// Stamp is what the programs say that they are. An empty Version is that of no release, an empty Revision an unknown
// commit, and At the commit's time, the zero one an unknown.
type Stamp struct {
	Version, Revision string
	At                time.Time
}

// flags are what the linker writes into the programs.
func (s Stamp) flags() string {
	flags := []string{"-s", "-w"}
	for _, v := range []struct{ name, value string }{
		{"Version", s.Version}, {"Revision", s.Revision}, {"Time", s.time()},
	} {
		if v.value != "" {
			flags = append(flags, "-X", Module+"/cmd/commandline."+v.name+"="+v.value)
		}
	}
	return strings.Join(flags, " ")
}

func (s Stamp) time() string {
	if s.At.IsZero() {
		return ""
	}
	return s.At.UTC().Format(time.RFC3339)
}

// ParseEpoch reads a time as SOURCE_DATE_EPOCH has it.
func ParseEpoch(text string) (time.Time, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: seconds since 1970 are accepted", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Compile writes programs for Linux on a processor architecture into a directory, and says meanwhile how far it is.
// What git says is not read: the same source with the same stamp is the same program in any checkout.
func Compile(ctx context.Context, dir, architecture string, s Stamp, part *heartbeat.Part, programs ...string) error {
	var paths []string
	for _, program := range programs {
		paths = append(paths, Module+"/cmd/"+program)
	}
	env := append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=",
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off")
	part.Say("looking for what is to be compiled")
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-deps"}, paths...)...)
	list.Env = env
	var text strings.Builder
	list.Stderr = &text
	all, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list: %w: %s", err, strings.TrimSpace(text.String()))
	}
	text.Reset()
	args := []string{"build", "-v", "-trimpath", "-buildvcs=false", "-ldflags=" + s.flags(), "-o", dir + "/"}
	cmd := exec.CommandContext(ctx, "go", append(args, paths...)...)
	cmd.Env = env
	said, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	compiled := 0
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if !packagePath.MatchString(lines.Text()) {
			text.WriteString(lines.Text() + "\n")
			continue
		}
		compiled++
		part.Say("%d of up to %d packages compiled", compiled, strings.Count(string(all), "\n"))
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, strings.TrimSpace(text.String()))
	}
	return nil
}

// packagePath is a line of `go build -v` that names what it compiles.
var packagePath = regexp.MustCompile(`^[A-Za-z0-9._/~+-]+$`)
