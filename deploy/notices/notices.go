// Package notices collects the licences of what is linked into millrace's programs, which are passed on with the
// programs.
package notices

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"millrace.io/millrace/deploy/image/layer"
)

// Licences are millrace's own licence, and those of all modules in its programs and of Go's own packages.
type Licences struct{ Own, ThirdParty []byte }

// Files are the licences as files below a directory.
func (l Licences) Files(dir string) []layer.File {
	return []layer.File{
		{Path: dir + "/LICENSE", Mode: 0o644, Content: l.Own},
		{Path: dir + "/THIRD_PARTY_NOTICES", Mode: 0o644, Content: l.ThirdParty},
	}
}

// title matches the names of files with licences and with what they demand to be passed on.
var title = regexp.MustCompile(`(?i)^(licen[cs]es?|copying|copyright|notices?|patents|unlicense)([-._].*)?$`)

// code matches the names of files that are none, whatever they begin with.
var code = regexp.MustCompile(`(?i)\.(go|s|c|h|sh|tmpl|json|ya?ml|html)$`)

// linked is what `go list` tells of a package.
type linked struct {
	Dir, Root string
	Standard  bool
	Module    *struct {
		Path, Version, Dir string
		Main               bool
		Replace            *struct{ Path, Version, Dir string }
	}
}

// Collect reads the licences of what is linked into programs of millrace for Linux on a processor architecture. A
// module that has none is an error.
func Collect(ctx context.Context, architecture string, programs ...string) (Licences, error) {
	args := []string{"list", "-deps", "-json=Dir,Root,Standard,Module"}
	for _, program := range programs {
		args = append(args, "millrace.io/millrace/cmd/"+program)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return Licences{}, fmt.Errorf("go list: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return read(bytes.NewReader(out))
}

// read collects the licences of the packages in a list.
func read(list io.Reader) (Licences, error) {
	var own Licences
	found := collection{}
	for d := json.NewDecoder(list); ; {
		var p linked
		err := d.Decode(&p)
		switch {
		case errors.Is(err, io.EOF):
			own.ThirdParty, err = found.text()
			return own, err
		case err != nil:
			return own, fmt.Errorf("go list: %w", err)
		case p.Standard:
			err = found.add("Go's own packages", p.Root, p.Root)
		case p.Module == nil:
			err = fmt.Errorf("package in %s is of no module", p.Dir)
		case p.Module.Main:
			own.Own, err = os.ReadFile(filepath.Join(p.Module.Dir, "LICENSE"))
		case p.Module.Replace != nil:
			err = found.add(p.Module.Replace.Path+" "+p.Module.Replace.Version, p.Module.Replace.Dir, p.Dir)
		default:
			err = found.add(p.Module.Path+" "+p.Module.Version, p.Module.Dir, p.Dir)
		}
		if err != nil {
			return own, err
		}
	}
}

// collection has the licences of each module: their texts by their paths in it.
type collection map[string]map[string]string

// add reads the licences in a package's directory and in those above it, up to its module's.
func (c collection) add(module, root, dir string) error {
	texts := c[module]
	if texts == nil {
		texts = map[string]string{}
		c[module] = texts
	}
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("licences of %s: %w", module, err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !title.MatchString(e.Name()) || code.MatchString(e.Name()) {
				continue
			}
			path := filepath.Join(dir, e.Name())
			text, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("licences of %s: %w", module, err)
			}
			texts[strings.TrimPrefix(path, root+"/")] = string(text)
		}
		if dir == root || len(dir) <= len(root) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// text writes the licences, each once, after the modules that it is of.
func (c collection) text() ([]byte, error) {
	modules := map[string][]string{} // by text
	for module, texts := range c {
		if len(texts) == 0 {
			return nil, fmt.Errorf("module %s has no file with its licence, and must not be passed on without", module)
		}
		for path, text := range texts {
			modules[text] = append(modules[text], module+" ("+path+")")
		}
	}
	texts := make([]string, 0, len(modules))
	for text, of := range modules {
		slices.Sort(of)
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(a, b string) int { return strings.Compare(modules[a][0], modules[b][0]) })
	out := bytes.NewBufferString("millrace's programs contain parts of the modules below, under the licences that " +
		"follow their names.\n")
	line := strings.Repeat("=", 80)
	for _, text := range texts {
		fmt.Fprintf(out, "\n%s\n%s\n%s\n\n%s\n", line, strings.Join(modules[text], "\n"), line,
			strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")))
	}
	return out.Bytes(), nil
}
