package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// MakeDir makes a directory with the mode 0755 in Alluxio alone. Its parent has to be there, and one that is there
// already stays. A mount that is made in it later has Alluxio make the directory in the under store around that mount,
// too.
func (m *Masters) MakeDir(ctx context.Context, path string) error {
	return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).CreateDirectory(ctx, &wire.CreateDirectoryPRequest{
			Path: &path,
			Options: &wire.CreateDirectoryPOptions{
				Recursive: proto.Bool(false), AllowExists: proto.Bool(true), Mode: &wire.PMode{
					OwnerBits: wire.Bits_ALL.Enum(), GroupBits: wire.Bits_READ_EXECUTE.Enum(),
					OtherBits: wire.Bits_READ_EXECUTE.Enum(),
				},
				WriteType: wire.WritePType_MUST_CACHE.Enum(), CommonOptions: safe(NeverSync),
			},
		})
		return err
	})
}

// RemoveDir removes a directory that is empty, from the under store around it, too: the caller knows which that is. One
// that is not there is fs.ErrNotExist.
func (m *Masters) RemoveDir(ctx context.Context, path string) error {
	return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).Remove(ctx, &wire.DeletePRequest{
			Path: &path,
			Options: &wire.DeletePOptions{
				Recursive: proto.Bool(false), AlluxioOnly: proto.Bool(false), CommonOptions: safe(NeverSync),
			},
		})
		return err
	})
}

// SetNote keeps a note with a path in Alluxio, in place of all that were kept with it; FileInfo.Xattr has it.
func (m *Masters) SetNote(ctx context.Context, path, name string, note []byte) error {
	return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).SetAttribute(ctx, &wire.SetAttributePRequest{
			Path: &path,
			Options: &wire.SetAttributePOptions{
				Xattr: map[string][]byte{name: note}, Recursive: proto.Bool(false), CommonOptions: safe(NeverSync),
			},
		})
		return err
	})
}
