// Command protogen writes the Go code of .proto files: make generate.
//
// protoc is not a Go module, and buf brings ninety of them and a minute of building. What is left without
// them is little: protocompile parses and checks the files, and the two plugins that protoc would run are
// run with the request that protoc would send. Their versions are pinned in the module that this is in, so
// that the same files give the same code on every machine.
//
//	protogen [-check] DIR...
//
// The directories are relative to the root of the repository, two levels above the working directory; so are the
// paths by which .proto files import each other. With -check nothing is written: files that differ from
// what would be written, or that nothing generates, are named, and the exit code is 1.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// root is the repository: protogen runs in the folder of its module, where the plugins are tools.
const root = "../.."

// plugins are tools of this module, in the order they are run.
var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

func main() {
	check := flag.Bool("check", false, "write nothing, fail if what is there is not current")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, flag.Args(), *check); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dirs []string, check bool) error {
	if len(dirs) == 0 {
		return errors.New("no directory given, want: protogen [-check] DIR")
	}
	for _, dir := range dirs {
		generated, err := generate(ctx, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		present, err := files(dir, "*.pb.go")
		if err != nil {
			return err
		}
		if check {
			err = compare(generated, present)
		} else {
			err = replace(generated, present)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// generate returns the Go files of a directory's .proto files, by their paths from the repository's root.
func generate(ctx context.Context, dir string) (map[string][]byte, error) {
	request, err := compile(ctx, dir)
	if err != nil {
		return nil, err
	}
	generated := map[string][]byte{}
	for _, plugin := range plugins {
		response, err := runPlugin(ctx, plugin, request)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", plugin, err)
		}
		for _, file := range response.GetFile() {
			generated[file.GetName()] = []byte(file.GetContent())
		}
	}
	return generated, nil
}

// compile parses and checks a directory's .proto files, and returns what a plugin is asked.
func compile(ctx context.Context, dir string) (*pluginpb.CodeGeneratorRequest, error) {
	sources, err := files(dir, "*.proto")
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		return nil, errors.New("no .proto file in it")
	}
	request := &pluginpb.CodeGeneratorRequest{Parameter: proto.String("paths=source_relative"), FileToGenerate: sources}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(ctx, sources...)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, file := range compiled {
		request.ProtoFile = appendFile(request.ProtoFile, file, seen)
	}
	return request, nil
}

// appendFile appends a file after those it imports, which is the order that plugins expect.
func appendFile(
	files []*descriptorpb.FileDescriptorProto, file protoreflect.FileDescriptor, seen map[string]bool,
) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return files
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		files = appendFile(files, file.Imports().Get(i).FileDescriptor, seen)
	}
	return append(files, protodesc.ToFileDescriptorProto(file))
}

// runPlugin asks one plugin, as protoc would: the request to its input, the response from its output.
func runPlugin(
	ctx context.Context, plugin string, request *pluginpb.CodeGeneratorRequest,
) (*pluginpb.CodeGeneratorResponse, error) {
	input, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", plugin) //nolint:gosec // The plugins are a list of its own.
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	response := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(output, response); err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	return response, nil
}

// replace writes what was generated, and removes what is generated no longer.
func replace(generated map[string][]byte, present []string) error {
	for name, content := range generated {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return err
		}
	}
	for _, name := range leftOver(generated, present) {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

// compare says which files are not what replace would leave.
func compare(generated map[string][]byte, present []string) error {
	stale := leftOver(generated, present)
	for name, want := range generated {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !bytes.Equal(got, want) {
			stale = append(stale, name)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	slices.Sort(stale)
	return fmt.Errorf("not what the .proto files say, run make generate: %q", stale)
}

// leftOver are the files present that nothing generates.
func leftOver(generated map[string][]byte, present []string) []string {
	return slices.DeleteFunc(slices.Clone(present), func(name string) bool {
		_, ok := generated[name]
		return ok
	})
}

// files are the paths, from the repository's root and with slashes, of the files in dir whose names match.
func files(dir, pattern string) ([]string, error) {
	found, err := fs.Glob(os.DirFS(filepath.Join(root, dir)), pattern)
	if err != nil {
		return nil, err
	}
	for i, name := range found {
		found[i] = path.Join(filepath.ToSlash(dir), name)
	}
	return found, nil
}
