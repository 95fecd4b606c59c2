package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"millrace.io/millrace/deploy/image/build"
)

// bomSuffix ends the names of bills of materials.
const bomSuffix = ".cdx.json"

// bom names the bill of materials of a program.
func (r *release) bom(architecture, program string) string {
	return r.name(architecture, "-"+program+bomSuffix)
}

// materials writes the bill of materials of each program: the modules that the linker put into it, with versions,
// checksums and licences.
func (r *release) materials(ctx context.Context) error {
	tool := filepath.Join(r.work, "cyclonedx-gomod")
	r.part.Say("building cyclonedx-gomod")
	if _, err := output(ctx, []string{"GOFLAGS=-trimpath -buildvcs=false"}, "go", "-C", ".tools/release", "build", "-o",
		tool,
		"github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod"); err != nil {
		return err
	}
	for i, architecture := range architectures {
		for j, program := range tools {
			r.part.Say("%d of %d", i*len(tools)+j+1, len(architectures)*len(tools))
			text, err := r.material(ctx, tool, architecture, program)
			if err != nil {
				return fmt.Errorf("%s for linux/%s: %w", program, architecture, err)
			}
			if err := os.WriteFile(r.bom(architecture, program), text, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// material has the tool write the bill of materials of a program.
func (r *release) material(ctx context.Context, tool, architecture, program string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, tool, "bin", "-json", "-std", "-licenses", "-noserial", "-notimestamp", "-version",
		r.version,
		filepath.Join(r.bin(architecture), program))
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+architecture)
	var said strings.Builder
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cyclonedx-gomod: %w: %s", err, said.String())
	}
	// The tool warns, and writes no licence. Of millrace itself there is nothing to be downloaded until the version is
	// published.
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, "module download failed") && !strings.Contains(line, build.Module+"@") {
			return nil, fmt.Errorf("cyclonedx-gomod: %s", strings.TrimSpace(line))
		}
	}
	return portable(text)
}

// portable makes a bill of materials the same wherever it is made: without the checksums of the tool that wrote it,
// which depend on the machine that the tool is compiled for, with millrace's licence as it is and not as a published
// version has it, and with sorted fields.
func portable(text []byte) ([]byte, error) {
	var bom map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&bom); err != nil {
		return nil, err
	}
	if metadata, ok := bom["metadata"].(map[string]any); ok {
		if main, ok := metadata["component"].(map[string]any); ok {
			delete(main, "evidence")
			main["licenses"] = []any{map[string]any{"license": map[string]any{"id": "Apache-2.0"}}}
		}
		if tools, ok := metadata["tools"].([]any); ok {
			for _, t := range tools {
				if tool, ok := t.(map[string]any); ok {
					delete(tool, "hashes")
				}
			}
		}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(bom)
	return out.Bytes(), err
}
