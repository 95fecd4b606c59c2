package ufs

import (
	"context"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// mostAsked bounds how many pages the server is asked for whether it encodes.
const mostAsked = 8

// encoding is what is known of a server that calls names encoded. Some echo the parameter and encode nothing.
// D-229 says how it is found out.
type encoding struct {
	// known says that it is, and raw that the names are as they are.
	known, raw atomic.Bool
	asked      atomic.Int32
}

// judge has the names of a page be as they are where the server calls them encoded and encodes nothing. That is
// asked by the first key that means two things.
func (c *s3Client) judge(ctx context.Context, page *listPage) {
	if !isEncoded(page.encoding) {
		return
	}
	if !c.encoding.known.Load() {
		c.learn(ctx, page.objects)
	}
	if c.encoding.raw.Load() {
		page.encoding = ""
	}
}

// learn finds out whether keys are encoded, where they tell.
func (c *s3Client) learn(ctx context.Context, objects []s3Item) {
	for _, i := range objects {
		plain := decoded(i.key, string(types.EncodingTypeUrl))
		if plain == i.key {
			continue
		}
		if c.encoding.asked.Add(1) > mostAsked {
			c.encoding.known.Store(true)
			return
		}
		encoded := c.exists(ctx, plain)
		if raw := !encoded && c.exists(ctx, i.key); encoded || raw {
			c.encoding.raw.Store(raw)
			c.encoding.known.Store(true)
		}
		return
	}
}

// exists reports whether the server says that there is an object of this key.
func (c *s3Client) exists(ctx context.Context, key string) bool {
	r, err := c.head(ctx, key, key)
	if err != nil {
		return false
	}
	_, err = c.http.statBy(ctx, http.MethodHead, r, nil)
	return err == nil
}

func isEncoded(encoding string) bool { return types.EncodingType(encoding) == types.EncodingTypeUrl }

// decoded is a name as it is. Servers that encode keys may leave common prefixes as they are: what no encoder writes is
// not decoded.
func decoded(name, encoding string) string {
	if !isEncoded(encoding) {
		return name
	}
	for i := range len(name) {
		if b := name[i]; b <= ' ' || b >= 0x7f || b == '"' || b == '<' || b == '>' {
			return name
		}
	}
	plain, err := url.QueryUnescape(name)
	if err != nil {
		return name
	}
	return plain
}
