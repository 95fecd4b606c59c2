package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// comparison collects where our files do not say what a server's say. Ours may leave out; what they have must be the
// same, but for fields that the server's messages require, which ours must have too.
type comparison struct {
	theirs *protoregistry.Files
	found  []string
	// compared counts the messages, fields, enum values and methods looked at: none would be no comparison.
	compared int
}

// differences lists what is different, a sentence each.
func differences(ours []protoreflect.FileDescriptor, theirs *protoregistry.Files) *comparison {
	c := &comparison{theirs: theirs}
	for _, file := range ours {
		for i := range file.Messages().Len() {
			c.message(file.Messages().Get(i))
		}
		for i := range file.Enums().Len() {
			c.enum(file.Enums().Get(i))
		}
		for i := range file.Services().Len() {
			c.service(file.Services().Get(i))
		}
	}
	return c
}

func (c *comparison) say(about protoreflect.Descriptor, format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf("%s: ", about.FullName())+fmt.Sprintf(format, args...))
}

// same reports a property of which ours and theirs are different.
func (c *comparison) same(about protoreflect.Descriptor, property string, ours, theirs any) {
	if ours != theirs {
		c.say(about, "%s %v, theirs is %v", property, ours, theirs)
	}
}

// counterpart is the server's descriptor of the same name and kind, or nothing and a difference.
func counterpart[D protoreflect.Descriptor](c *comparison, ours D) (theirs D, ok bool) {
	c.compared++
	found, err := c.theirs.FindDescriptorByName(ours.FullName())
	if err != nil {
		c.say(ours, "they have nothing of that name")
		return theirs, false
	}
	if theirs, ok = found.(D); !ok {
		c.say(ours, "theirs is another kind of thing, a %T", found)
	}
	return theirs, ok
}

func (c *comparison) message(ours protoreflect.MessageDescriptor) {
	theirs, ok := counterpart(c, ours)
	if !ok {
		return
	}
	c.same(ours, "map entry", ours.IsMapEntry(), theirs.IsMapEntry())
	for i := range ours.Fields().Len() {
		c.field(ours.Fields().Get(i), theirs)
	}
	for i := range theirs.Fields().Len() {
		field := theirs.Fields().Get(i)
		if field.Cardinality() == protoreflect.Required && ours.Fields().ByName(field.Name()) == nil {
			c.say(ours, "theirs requires %s, which ours has not", field.Name())
		}
	}
	for i := range ours.Messages().Len() {
		c.message(ours.Messages().Get(i))
	}
	for i := range ours.Enums().Len() {
		c.enum(ours.Enums().Get(i))
	}
}

func (c *comparison) field(ours protoreflect.FieldDescriptor, message protoreflect.MessageDescriptor) {
	c.compared++
	theirs := message.Fields().ByName(ours.Name())
	if theirs == nil {
		c.say(ours, "their message has no such field")
		return
	}
	c.same(ours, "number", ours.Number(), theirs.Number())
	c.same(ours, "type", typeOf(ours), typeOf(theirs))
	c.same(ours, "label", ours.Cardinality(), theirs.Cardinality())
	c.same(ours, "default", defaultOf(ours), defaultOf(theirs))
	c.same(ours, "oneof", oneofOf(ours), oneofOf(theirs))
	c.same(ours, "packed", ours.IsPacked(), theirs.IsPacked())
}

func typeOf(field protoreflect.FieldDescriptor) string {
	switch {
	case field.Message() != nil:
		return string(field.Message().FullName())
	case field.Enum() != nil:
		return string(field.Enum().FullName())
	}
	return field.Kind().String()
}

// defaultOf is what a reader takes an unset field for, which for an enum is the first of its values.
func defaultOf(field protoreflect.FieldDescriptor) string {
	switch {
	case field.IsList() || field.Message() != nil:
		return "none"
	case field.Enum() != nil && !field.HasDefault():
		return string(field.Enum().Values().Get(0).Name())
	case field.Enum() != nil:
		return string(field.DefaultEnumValue().Name())
	}
	return field.Default().String()
}

func oneofOf(field protoreflect.FieldDescriptor) string {
	if oneof := field.ContainingOneof(); oneof != nil {
		return string(oneof.Name())
	}
	return "none"
}

func (c *comparison) enum(ours protoreflect.EnumDescriptor) {
	theirs, ok := counterpart(c, ours)
	if !ok {
		return
	}
	for i := range ours.Values().Len() {
		c.compared++
		our := ours.Values().Get(i)
		their := theirs.Values().ByName(our.Name())
		if their == nil {
			c.say(our, "their enum %s has no such value", theirs.Name())
			continue
		}
		c.same(our, "number", our.Number(), their.Number())
	}
}

func (c *comparison) service(ours protoreflect.ServiceDescriptor) {
	theirs, ok := counterpart(c, ours)
	if !ok {
		return
	}
	for i := range ours.Methods().Len() {
		c.compared++
		our := ours.Methods().Get(i)
		their := theirs.Methods().ByName(our.Name())
		if their == nil {
			c.say(our, "their service has no such method")
			continue
		}
		c.same(our, "request", our.Input().FullName(), their.Input().FullName())
		c.same(our, "response", our.Output().FullName(), their.Output().FullName())
		c.same(our, "stream of requests", our.IsStreamingClient(), their.IsStreamingClient())
		c.same(our, "stream of responses", our.IsStreamingServer(), their.IsStreamingServer())
	}
}

// TestDifferencesAreSeen makes one mistake at a time in a copy of our files, and expects it, and nothing else, to be
// reported.
func TestDifferencesAreSeen(t *testing.T) {
	right, err := protodesc.NewFiles(asSet(ourFiles()))
	if err != nil {
		t.Fatal(err)
	}
	if c := differences(ourFiles(), right); len(c.found) != 0 {
		t.Fatalf("our files and their copy: %q", c.found)
	}
	for _, mistake := range []struct {
		name string
		make func(*copied)
		want string
	}{
		{
			"number of a field", func(s *copied) { s.field("FileInfo", "ttl").Number = proto.Int32(99) },
			"alluxio.grpc.file.FileInfo.ttl: number 99, theirs is 15",
		},
		{
			"name of a field", func(s *copied) { s.field("CacheRequest", "length").Name = proto.String("size") },
			"alluxio.grpc.block.CacheRequest.size: their message has no such field",
		},
		{"type of a field", func(s *copied) {
			s.field("ReadRequest", "length").Type = descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum()
		}, "alluxio.grpc.block.ReadRequest.length: type int32, theirs is int64"},
		{"message of a field", func(s *copied) {
			s.field("WorkerInfo", "address").TypeName = proto.String(".alluxio.grpc.NetAddress")
		}, "alluxio.grpc.block.WorkerInfo.address: type alluxio.grpc.NetAddress, theirs is " +
			"alluxio.grpc.WorkerNetAddress"},
		{"type of a map's values", func(s *copied) {
			s.field("BlockMasterInfo.CapacityBytesOnTiersEntry",
				"value").Type = descriptorpb.FieldDescriptorProto_TYPE_SINT64.Enum()
		}, "alluxio.grpc.block.BlockMasterInfo.CapacityBytesOnTiersEntry.value: type sint64, theirs is int64"},
		{"label of a field", func(s *copied) {
			s.field("Metric", "metricType").Label = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
		}, "alluxio.grpc.Metric.metricType: label optional, theirs is required"},
		{
			"default of a field", func(s *copied) { s.field("GetStatusPOptions", "updateTimestamps").DefaultValue = nil },
			"alluxio.grpc.file.GetStatusPOptions.updateTimestamps: default false, theirs is true",
		},
		{
			"oneof of a field", func(s *copied) { s.field("WriteRequest", "chunk").OneofIndex = nil },
			"alluxio.grpc.block.WriteRequest.chunk: oneof none, theirs is value",
		},
		{"required field left out", func(s *copied) {
			m := s.message("Metric")
			m.Field = m.GetField()[:4]
			m.NestedType = nil
		}, "alluxio.grpc.Metric: theirs requires metricType, which ours has not"},
		{"message of our making", func(s *copied) {
			file := s.set.GetFile()[0]
			file.MessageType = append(file.GetMessageType(),
				&descriptorpb.DescriptorProto{Name: proto.String("Invented")})
		}, "alluxio.grpc.block.Invented: they have nothing of that name"},
		{
			"number of an enum's value", func(s *copied) { s.value("TtlAction", "FREE").Number = proto.Int32(7) },
			"alluxio.grpc.FREE: number 7, theirs is 1",
		},
		{
			"name of an enum's value", func(s *copied) { s.value("TtlAction", "FREE").Name = proto.String("LIBERATE") },
			"alluxio.grpc.LIBERATE: their enum TtlAction has no such value",
		},
		{
			"name of a method", func(s *copied) {
				s.method("FileSystemMasterClientService",
					"Free").Name = proto.String("free")
			},
			"alluxio.grpc.file.FileSystemMasterClientService.free: their service has no such method",
		},
		{"request of a method", func(s *copied) {
			s.method("BlockWorker", "Cache").InputType = proto.String(".alluxio.grpc.block.RemoveBlockRequest")
		}, "alluxio.grpc.block.BlockWorker.Cache: request alluxio.grpc.block.RemoveBlockRequest, theirs is " +
			"alluxio.grpc.block.CacheRequest"},
		{"stream of a method", func(s *copied) {
			s.method("FileSystemMasterClientService", "ListStatus").ServerStreaming = proto.Bool(false)
		}, "alluxio.grpc.file.FileSystemMasterClientService.ListStatus: stream of responses false, theirs is true"},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			wrong := &copied{t, asSet(ourFiles())}
			mistake.make(wrong)
			found := differences(wrong.files(), right).found
			if len(found) != 1 || found[0] != mistake.want {
				t.Errorf("found  %q\nwanted %q", found, mistake.want)
			}
		})
	}
}

// copied is a copy of our files in which mistakes can be made. Things are found by their name within the package.
type copied struct {
	t   *testing.T
	set *descriptorpb.FileDescriptorSet
}

func (s *copied) files() []protoreflect.FileDescriptor {
	s.t.Helper()
	files, err := protodesc.NewFiles(s.set)
	if err != nil {
		s.t.Fatal(err)
	}
	return allOf(files)
}

func (s *copied) message(name string) *descriptorpb.DescriptorProto {
	s.t.Helper()
	var messages []*descriptorpb.DescriptorProto
	for _, file := range s.set.GetFile() {
		messages = append(messages, file.GetMessageType()...)
	}
	outer, inner, nested := strings.Cut(name, ".")
	message := named(s.t, messages, outer)
	if !nested {
		return message
	}
	return named(s.t, message.GetNestedType(), inner)
}

func (s *copied) field(message, name string) *descriptorpb.FieldDescriptorProto {
	s.t.Helper()
	return named(s.t, s.message(message).GetField(), name)
}

func (s *copied) value(enum, name string) *descriptorpb.EnumValueDescriptorProto {
	s.t.Helper()
	var enums []*descriptorpb.EnumDescriptorProto
	for _, file := range s.set.GetFile() {
		enums = append(enums, file.GetEnumType()...)
	}
	return named(s.t, named(s.t, enums, enum).GetValue(), name)
}

func (s *copied) method(service, name string) *descriptorpb.MethodDescriptorProto {
	s.t.Helper()
	var services []*descriptorpb.ServiceDescriptorProto
	for _, file := range s.set.GetFile() {
		services = append(services, file.GetService()...)
	}
	return named(s.t, named(s.t, services, service).GetMethod(), name)
}

func named[T interface{ GetName() string }](t *testing.T, all []T, name string) T {
	t.Helper()
	i := slices.IndexFunc(all, func(one T) bool { return one.GetName() == name })
	if i < 0 {
		t.Fatalf("nothing is named %s in our files", name)
	}
	return all[i]
}
