package fakealluxio

import (
	"context"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// pick draws one of them.
func pick[T any](d *rand.Rand, of ...T) T { return of[d.IntN(len(of))] }

// hostile is a number that no server should tell.
func hostile(d *rand.Rand) int64 {
	return pick[int64](d, -1, math.MinInt64, math.MinInt64+1, 1<<50+1, 1<<62, 1<<62+12345, math.MaxInt64-1,
		math.MaxInt64)
}

// Names are those that no directory can have.
func Names() []string {
	return []string{"", ".", "..", "/", "a/b", "a\x00b", "\x00", strings.Repeat("n", 1<<16)}
}

// longest is how long an answer takes that no client waits for.
const longest = 3 * time.Second

// refuse has a call fail, or take long, as the dice say.
func (f *Fake) refuse(ctx context.Context, d *rand.Rand) error {
	if d == nil {
		return nil
	}
	switch d.IntN(16) {
	case 0:
		return status.Error(codes.Internal, "a lie")
	case 1:
		return status.Error(codes.ResourceExhausted, "too many requests at the moment")
	case 2:
		return status.Error(codes.Unavailable, "not at the moment")
	case 3:
		return status.Error(codes.NotFound, "it does not exist, at the moment")
	case 4:
		return f.sleep(ctx, longest)
	case 5:
		return f.sleep(ctx, time.Duration(d.IntN(900))*time.Millisecond)
	}
	return nil
}

// sleep waits unless the caller gives up.
func (f *Fake) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-f.life.Done():
		return status.Error(codes.Unavailable, "over")
	}
}

// lieOfFile changes what is told of a file. What is told stays such that it cannot be true: a wrong number that is
// possible cannot be told from a right one.
func lieOfFile(d *rand.Rand, info *wire.FileInfo) {
	if d == nil || info.GetFolder() {
		return
	}
	switch d.IntN(12) {
	case 0:
		info.Length = proto.Int64(hostile(d))
	case 1:
		info.Length = nil
	case 2:
		info.BlockSizeBytes = proto.Int64(pick[int64](d, 0, -1, math.MinInt64))
	case 3:
		info.FileId = proto.Int64(pick[int64](d, 0, -1, 5<<sequence, math.MinInt64))
	case 4:
		for _, b := range info.GetFileBlockInfos() {
			b.BlockInfo.BlockId, b.BlockInfo.Length = proto.Int64(hostile(d)), proto.Int64(hostile(d))
		}
	case 5:
		for _, b := range info.GetFileBlockInfos() {
			lieOfPlaces(d, b.GetBlockInfo())
		}
	case 6:
		info.FileBlockInfos = append(info.FileBlockInfos, info.GetFileBlockInfos()...)
	case 7:
		info.FileBlockInfos = []*wire.FileBlockInfo{{}, {BlockInfo: &wire.BlockInfo{}}}
	}
}

// lieOfListing adds to a listing what cannot be, and tells entries twice.
func lieOfListing(d *rand.Rand, infos []*wire.FileInfo) []*wire.FileInfo {
	if d == nil {
		return infos
	}
	for _, name := range Names() {
		if d.IntN(3) == 0 {
			infos = append(infos, &wire.FileInfo{
				Name: proto.String(name), Folder: proto.Bool(d.IntN(2) == 0),
				Length: proto.Int64(1),
			})
		}
	}
	if n := len(infos); n > 0 && d.IntN(3) == 0 {
		infos = append(infos, infos[d.IntN(n)])
	}
	d.Shuffle(len(infos), func(i, j int) { infos[i], infos[j] = infos[j], infos[i] })
	return infos
}

// addresses are workers that cannot be, and some that do not answer.
func addresses(d *rand.Rand) *wire.WorkerNetAddress {
	host := pick(d, "", "a b", "/etc", "h\x00", "@", strings.Repeat("h", 5000), "127.0.0.1", "127.0.0.2")
	return &wire.WorkerNetAddress{
		Host: &host, RpcPort: proto.Int32(pick[int32](d, 0, -1, 1, 70000, math.MaxInt32, math.MinInt32)),
		DataPort: proto.Int32(pick[int32](d, 0, -1, math.MaxInt32)),
	}
}

// lieOfPlaces changes where a block is.
func lieOfPlaces(d *rand.Rand, info *wire.BlockInfo) {
	if d == nil {
		return
	}
	switch d.IntN(6) {
	case 0:
		info.BlockId = proto.Int64(hostile(d))
	case 1:
		info.Length = proto.Int64(hostile(d))
	case 2:
		for range pick(d, 1, 3, 2000) {
			info.Locations = append(info.Locations, &wire.BlockLocation{
				WorkerId:      proto.Int64(hostile(d)),
				WorkerAddress: addresses(d),
			})
		}
	case 3:
		info.Locations = append(info.Locations, &wire.BlockLocation{})
	case 4:
		info.Locations = append(info.Locations, info.GetLocations()...)
	}
}

// lieOfWorkers adds workers that cannot be, and hostile numbers. The true one stays: without it there is nothing to
// be right about.
func lieOfWorkers(d *rand.Rand, infos []*wire.WorkerInfo) []*wire.WorkerInfo {
	if d == nil {
		return infos
	}
	for range d.IntN(20) {
		infos = append(infos, &wire.WorkerInfo{
			Id: proto.Int64(hostile(d)), Address: addresses(d),
			CapacityBytes: proto.Int64(hostile(d)), UsedBytes: proto.Int64(hostile(d)),
		})
	}
	if d.IntN(4) == 0 {
		infos = append(infos, infos[0], &wire.WorkerInfo{})
	}
	d.Shuffle(len(infos), func(i, j int) { infos[i], infos[j] = infos[j], infos[i] })
	return infos
}

// lieOfMounts adds mounts that cannot be.
func lieOfMounts(d *rand.Rand, table map[string]*wire.MountPointInfo) {
	if d == nil {
		return
	}
	for _, at := range []string{
		"", "relative", "//", "/a//b", "/..", "/a/../b", "/\x00",
		"/" + strings.Repeat("m", 1<<16),
	} {
		if d.IntN(2) == 0 {
			table[at] = &wire.MountPointInfo{UfsUri: proto.String(pick(d, "", "/", "/proc", "http://", "http://\x00",
				"s3://x", "alluxio://y")), MountId: proto.Int64(hostile(d))}
		}
	}
}

// Paths are files that a worker might name for a block, and none of them is one.
func Paths(id int64) []string {
	name := strconv.FormatInt(id, 10)
	return []string{
		"", "/", name, "/etc/passwd", "/dev/zero", "/proc/self/mem", "../" + name, "/nowhere/" + name,
		"/tmp\x00/" + name, "/" + strings.Repeat("p", 1<<16) + "/" + name,
	}
}
