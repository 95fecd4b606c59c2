package wire_test

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/cluster"
)

// ourFiles are all files that package wire is generated from, ordered by path.
func ourFiles() []protoreflect.FileDescriptor {
	dir := wire.File_cacheclient_alluxio_wire_common_proto.Path()
	dir = dir[:strings.LastIndexByte(dir, '/')+1]
	return slices.DeleteFunc(allOf(protoregistry.GlobalFiles), func(f protoreflect.FileDescriptor) bool {
		return !strings.HasPrefix(f.Path(), dir)
	})
}

func allOf(files *protoregistry.Files) []protoreflect.FileDescriptor {
	var all []protoreflect.FileDescriptor
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		all = append(all, file)
		return true
	})
	slices.SortFunc(all, func(a, b protoreflect.FileDescriptor) int { return strings.Compare(a.Path(), b.Path()) })
	return all
}

// asSet are files as they go over a wire, a copy.
func asSet(files []protoreflect.FileDescriptor) *descriptorpb.FileDescriptorSet {
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range files {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	return set
}

// fromJar compiles the .proto files that the jar of Alluxio's protocol carries beside the Java code made from them.
func fromJar(t *testing.T) *protoregistry.Files {
	t.Helper()
	if testing.Short() {
		t.Skip("resolves Alluxio's jars by Maven: make test")
	}
	version, err := cluster.Version()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cluster.Jars(t.Context())
	if errors.Is(err, cluster.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	jar, err := zip.OpenReader(filepath.Join(dir, "alluxio-core-transport-"+version+".jar"))
	if err != nil {
		t.Fatal(err)
	}
	defer jar.Close()
	var names []string
	for _, file := range jar.File {
		if strings.HasSuffix(file.Name, ".proto") {
			names = append(names, file.Name)
		}
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: func(path string) (io.ReadCloser, error) { return jar.Open(path) },
	})}
	compiled, err := compiler.Compile(t.Context(), names...)
	if err != nil {
		t.Fatalf("the .proto files of %s: %v", dir, err)
	}
	files := &protoregistry.Files{}
	for _, file := range compiled {
		if err := files.RegisterFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// serverReflection asks a running server for the descriptors of its services.
type serverReflection struct {
	stream grpc.ClientStream
}

// openReflection opens the stream of questions, by the protocol's name of today or by that of before, under which
// Alluxio's gRPC serves the same messages.
func openReflection(ctx context.Context, conn *grpc.ClientConn) (*serverReflection, error) {
	today := reflection.ServerReflection_ServerReflectionInfo_FullMethodName
	for _, method := range []string{today, strings.Replace(today, ".v1.", ".v1alpha.", 1)} {
		stream, err := conn.NewStream(ctx, &reflection.ServerReflection_ServiceDesc.Streams[0], method)
		if err != nil {
			return nil, err
		}
		r := &serverReflection{stream}
		if _, err := r.services(); status.Code(err) == codes.Unimplemented {
			continue
		} else if err != nil {
			return nil, err
		}
		return r, nil
	}
	return nil, errors.New("the server has no reflection service")
}

func (r *serverReflection) ask(request *reflection.ServerReflectionRequest) (
	*reflection.ServerReflectionResponse, error,
) {
	// A stream that has failed says so when it is received from.
	if err := r.stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	response := &reflection.ServerReflectionResponse{}
	if err := r.stream.RecvMsg(response); err != nil {
		return nil, err
	}
	if e := response.GetErrorResponse(); e != nil {
		return nil, fmt.Errorf("reflection of %v: %w", request.GetMessageRequest(),
			status.Error(codes.Code(e.GetErrorCode()), e.GetErrorMessage()))
	}
	return response, nil
}

// services are the full names of the services that the server lists.
func (r *serverReflection) services() ([]string, error) {
	response, err := r.ask(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, service := range response.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	return names, nil
}

// files are the files that define the services, and all that these import.
func (r *serverReflection) files(services []string) (*protoregistry.Files, error) {
	set := map[string]*descriptorpb.FileDescriptorProto{}
	for _, service := range services {
		if err := r.collect(set, &reflection.ServerReflectionRequest{
			MessageRequest: &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service},
		}); err != nil {
			return nil, err
		}
	}
	files := &descriptorpb.FileDescriptorSet{}
	for _, file := range set {
		files.File = append(files.File, file)
	}
	return protodesc.NewFiles(files)
}

// collect adds the files of an answer, and asks for those that they import and the answer did not have.
func (r *serverReflection) collect(
	set map[string]*descriptorpb.FileDescriptorProto, request *reflection.ServerReflectionRequest,
) error {
	response, err := r.ask(request)
	if err != nil {
		return err
	}
	var imports []string
	for _, raw := range response.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, file); err != nil {
			return err
		}
		set[file.GetName()] = file
		imports = append(imports, file.GetDependency()...)
	}
	for _, name := range imports {
		if set[name] != nil {
			continue
		}
		if err := r.collect(set, &reflection.ServerReflectionRequest{
			MessageRequest: &reflection.ServerReflectionRequest_FileByFilename{FileByFilename: name},
		}); err != nil {
			return err
		}
	}
	return nil
}
