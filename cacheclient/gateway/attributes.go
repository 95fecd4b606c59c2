package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/cacheclient"
)

// maxAttributes is how many files' attributes are remembered: some 6 MB.
const maxAttributes = 16 << 10

// attributes remembers what files are like, for a while. Nothing is remembered of what does not exist.
type attributes struct {
	source     *source
	revalidate time.Duration
	// parallel is how many files are asked for at a time for one listing.
	parallel int
	known    *lru.Cache[string, known]
}

// known is what was learned, and when.
type known struct {
	info cacheclient.Info
	at   time.Time
}

func newAttributes(src *source, revalidate time.Duration, parallel int) *attributes {
	// It fails for a size below 1 only.
	cache, _ := lru.New[string, known](maxAttributes)
	return &attributes{source: src, revalidate: revalidate, parallel: parallel, known: cache}
}

// learn remembers a description that the source gave at that time.
func (a *attributes) learn(info cacheclient.Info, at time.Time) {
	a.known.Add(info.Path, known{info, at})
}

// forget has the next request ask the source.
func (a *attributes) forget(path string) { a.known.Remove(path) }

// recall is what is remembered of a path, and whether it may still be believed.
func (a *attributes) recall(path string) (info cacheclient.Info, remembered, believed bool) {
	k, ok := a.known.Get(path)
	return k.info, ok, ok && time.Since(k.at) < a.revalidate
}

// stat describes a path as it is, or lately was.
func (a *attributes) stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if info, _, believed := a.recall(path); believed {
		return info, nil
	}
	return a.ask(ctx, path)
}

// ask describes a path as the source does now.
func (a *attributes) ask(ctx context.Context, path string) (cacheclient.Info, error) {
	asked := time.Now()
	info, err := a.source.stat(ctx, path)
	if err != nil {
		a.forget(path)
		return cacheclient.Info{}, err
	}
	info.Path = path
	a.learn(info, asked)
	return info, nil
}

// complete asks for the attributes that the infos lack, several files at a time. Those of a file that cannot be
// described, such as one that has gone or that the server fails on, stay unknown; when the source does not answer,
// that is the error.
func (a *attributes) complete(ctx context.Context, infos []*cacheclient.Info) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(a.parallel)
	for _, info := range infos {
		if info.Size != cacheclient.UnknownSize {
			continue
		}
		group.Go(func() error {
			full, err := a.stat(ctx, info.Path)
			switch {
			case err == nil:
				*info = full
			case ctx.Err() != nil || ofAll(err):
				return err
			}
			return nil
		})
	}
	return group.Wait()
}

// unknownTime is the time of a file whose source tells none, and of a directory: S3 has no word for unknown, and a
// time that changes would make Alluxio load the file anew.
var unknownTime = time.Unix(0, 0).UTC()

// modified is the time of a file in whole seconds, for a header has no more, and a listing must not tell another.
// Neither has room for a year of more than four digits: a client that cannot read one would lose the whole page.
func modified(info cacheclient.Info) time.Time {
	t := info.ModTime.UTC()
	if info.ModTime.IsZero() || t.Year() < 1 || t.Year() > 9999 {
		return unknownTime
	}
	return t.Truncate(time.Second)
}

// directoryETag is the ETag of the empty objects that mark directories, the MD5 of nothing.
const directoryETag = `"d41d8cd98f00b204e9800998ecf8427e"`

// etag names a version of a file, the same in a listing as in a response. It is made of the source's own ETag, or of
// size and time, and ends as those of objects uploaded in parts do: any other is taken for the content's MD5 by S3
// clients, and Alluxio's compares.
func etag(info cacheclient.Info) string {
	if info.Dir {
		return directoryETag
	}
	sum := sha256.Sum256([]byte(info.Mark()))
	return `"` + hex.EncodeToString(sum[:16]) + `-1"`
}
