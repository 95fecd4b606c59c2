package rpc

import (
	"context"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// recorder is a gRPC server that answers every call with an empty message, and keeps what it was asked.
type recorder struct {
	// mu guards asked.
	mu    sync.Mutex
	asked map[string][]byte
}

// plainBytes is a codec that leaves messages as they are.
type plainBytes struct{ encoding.CodecV2 }

func (plainBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (plainBytes) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (r *recorder) answer(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var request, reply []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	if method == wire.SaslAuthenticationService_Authenticate_FullMethodName {
		reply, _ = proto.Marshal(&wire.SaslMessage{MessageType: wire.SaslMessageType_SUCCESS.Enum()})
		if err := stream.SendMsg(&reply); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}
	r.mu.Lock()
	r.asked[method] = request
	r.mu.Unlock()
	if method == wire.FileSystemMasterClientService_ListStatus_FullMethodName {
		return nil
	}
	return stream.SendMsg(&reply)
}

// TestEveryRequestIsSafe makes every call of Masters, and checks every request whose type can have common options:
// without ttl -1 and FREE a master would delete files from their sources.
func TestEveryRequestIsSafe(t *testing.T) {
	noMoreGoroutines(t)
	r := &recorder{asked: make(map[string][]byte)}
	addr := grpcServer(t, func(*grpc.Server) {}, grpc.UnknownServiceHandler(r.answer),
		grpc.ForceServerCodecV2(plainBytes{encoding.GetCodecV2("proto")}))
	m := connect(t, addr)
	masters := reflect.ValueOf(m.Masters)
	for i := range masters.NumMethod() {
		callWithAnything(t, masters.Method(i))
	}
	checked := 0
	for method, request := range r.asked {
		service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + name))
		if err != nil {
			t.Fatal(err)
		}
		message := dynamicpb.NewMessage(d.(protoreflect.MethodDescriptor).Input())
		if err := proto.Unmarshal(request, message); err != nil {
			t.Fatal(err)
		}
		checked += checkSafe(t, method, message)
	}
	t.Logf("%d methods made %d kinds of requests, of which %d have common options", masters.NumMethod(), len(r.asked),
		checked)
	for _, method := range []string{
		wire.FileSystemMasterClientService_GetStatus_FullMethodName,
		wire.FileSystemMasterClientService_ListStatus_FullMethodName,
		wire.FileSystemMasterClientService_Mount_FullMethodName,
		wire.FileSystemMasterClientService_SetAttribute_FullMethodName,
	} {
		if r.asked[method] == nil {
			t.Errorf("%s was never called: this tested too little", method)
		}
	}
}

// callWithAnything calls a method with a context and whatever else it takes.
func callWithAnything(t *testing.T, method reflect.Value) {
	t.Helper()
	var args []reflect.Value
	for i := range method.Type().NumIn() {
		in := method.Type().In(i)
		switch {
		case in == reflect.TypeFor[context.Context]():
			args = append(args, reflect.ValueOf(within(t, 10*time.Second)))
		case in.Kind() == reflect.Func:
			args = append(args, reflect.MakeFunc(in, func([]reflect.Value) []reflect.Value {
				return []reflect.Value{reflect.Zero(in.Out(0))}
			}))
		case in.Kind() == reflect.String:
			args = append(args, reflect.ValueOf("/x").Convert(in))
		default:
			args = append(args, reflect.Zero(in))
		}
	}
	method.Call(args)
}

// checkSafe checks the common options wherever a message can have them, and returns in how many places that is.
func checkSafe(t *testing.T, method string, m protoreflect.Message) int {
	t.Helper()
	n := 0
	for i := range m.Descriptor().Fields().Len() {
		field := m.Descriptor().Fields().Get(i)
		if field.Message() == nil || field.IsList() || field.IsMap() {
			continue
		}
		if field.Message().FullName() != "alluxio.grpc.file.FileSystemMasterCommonPOptions" {
			n += checkSafe(t, method, m.Get(field).Message())
			continue
		}
		n++
		b, err := proto.Marshal(m.Get(field).Message().Interface())
		if err != nil {
			t.Fatal(err)
		}
		var common wire.FileSystemMasterCommonPOptions
		if err := proto.Unmarshal(b, &common); err != nil {
			t.Fatal(err)
		}
		if !m.Has(field) || common.Ttl == nil || common.GetTtl() != -1 || common.TtlAction == nil ||
			common.GetTtlAction() != wire.TtlAction_FREE {
			t.Errorf("%s is sent with the common options %v", method, &common)
		}
	}
	return n
}

// TestSourceIsNeverDeleted loads files by each call that loads metadata, and looks at what the real master has made of
// their time to live.
func TestSourceIsNeverDeleted(t *testing.T) {
	c := shared.Get(t)
	m := connect(t, addresses(c)...)
	ctx := within(t, 60*time.Second)
	listed, stated, loaded := newDir(t, c, 3), newDir(t, c, 3), newDir(t, c, 3)
	if err := m.List(ctx, listed, AlwaysSync, func() error { return io.ErrUnexpectedEOF },
		func(*wire.FileInfo) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Status(ctx, stated+"/f1", AlwaysSync); err != nil {
		t.Fatal(err)
	}
	if err := m.Load(ctx, loaded, AlwaysSync); err != nil {
		t.Fatal(err)
	}
	if err := m.Pin(ctx, loaded, true); err != nil {
		t.Fatal(err)
	}
	if err := m.Free(ctx, loaded, true); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{listed, listed + "/f0", stated, stated + "/f1", loaded, loaded + "/f2"} {
		f, err := m.Status(ctx, path, NeverSync)
		if err != nil || f.GetTtl() != -1 || f.GetTtlAction() != wire.TtlAction_FREE {
			t.Errorf("%s has a time to live of %d ms and then %v (%v)", path, f.GetTtl(), f.GetTtlAction(), err)
		}
	}
	if err := m.Pin(ctx, loaded, false); err != nil {
		t.Fatal(err)
	}
}
