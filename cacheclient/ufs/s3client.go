package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	rclone "github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"

	"millrace.io/millrace/cacheclient"
)

// bucketOptions are those of rclone's s3 backend that decide how a bucket is reached.
type bucketOptions struct {
	Provider              string          `config:"provider"`
	Region                string          `config:"region"`
	Endpoint              string          `config:"endpoint"`
	EnvAuth               bool            `config:"env_auth"`
	AccessKeyID           string          `config:"access_key_id"`
	SecretAccessKey       string          `config:"secret_access_key"`
	SessionToken          string          `config:"session_token"`
	Profile               string          `config:"profile"`
	SharedCredentialsFile string          `config:"shared_credentials_file"`
	RoleARN               string          `config:"role_arn"`
	RoleSessionName       string          `config:"role_session_name"`
	RoleSessionDuration   rclone.Duration `config:"role_session_duration"`
	RoleExternalID        string          `config:"role_external_id"`
	RequesterPays         bool            `config:"requester_pays"`
	UseAccelerate         bool            `config:"use_accelerate_endpoint"`
	UseARNRegion          bool            `config:"use_arn_region"`
	UseDualStack          bool            `config:"use_dual_stack"`
	ListChunk             int32           `config:"list_chunk"`
	ListVersion           int             `config:"list_version"`
	ListURLEncode         rclone.Tristate `config:"list_url_encode"`
}

// s3Client speaks to one bucket: the AWS SDK signs and lists, and our HTTP client carries it.
type s3Client struct {
	opt    bucketOptions
	bucket string
	payer  types.RequestPayer
	api    *s3.Client
	signer *s3.PresignClient
	http   *httpClient
	// anonymous says that nothing is signed.
	anonymous bool
	// noV2 remembers that the server knows listings of the first version only, and encode that its listings have names
	// which XML does not carry.
	noV2, encode flag
	// encoding is what is known of names that the server calls encoded.
	encoding encoding
}

func newS3Client(ctx context.Context, src source, values configmap.Simple, client *httpClient) (*s3Client, error) {
	c := &s3Client{bucket: src.bucket, http: client}
	if err := configstruct.Set(values, &c.opt); err != nil {
		return nil, err
	}
	if err := checkBucket(src.bucket); err != nil {
		return nil, err
	}
	pathStyle, err := pathStyle(ctx, src.bucket, values)
	if err != nil {
		return nil, err
	}
	config, err := c.opt.awsConfig(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	if c.opt.RequesterPays {
		c.payer = types.RequestPayerRequester
	}
	c.noV2.Store(c.opt.ListVersion == 1 || c.opt.ListVersion == 0 && c.opt.Provider == providerOther)
	c.encode.Store(c.opt.ListURLEncode.Value || !c.opt.ListURLEncode.Valid && c.opt.Provider != providerOther)
	c.api = s3.NewFromConfig(config, func(o *s3.Options) {
		o.HTTPClient = listDoer{client}
		// One attempt: the caller retries.
		o.Retryer = aws.NopRetryer{}
		o.UsePathStyle, o.UseAccelerate, o.UseARNRegion = pathStyle, c.opt.UseAccelerate, c.opt.UseARNRegion
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateDisabled
		if c.opt.UseDualStack {
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
		}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if c.opt.Endpoint != "" {
			o.BaseEndpoint = aws.String(withScheme(c.opt.Endpoint))
		}
		o.APIOptions = append(o.APIOptions, plainlySigned)
	})
	c.anonymous = !c.opt.EnvAuth && c.opt.AccessKeyID == "" && c.opt.RoleARN == ""
	signing := c.api
	if c.anonymous {
		// The SDK makes no URL without keys: one is signed with keys that do not matter, and the signature is taken off.
		signing = s3.New(c.api.Options(),
			func(o *s3.Options) { o.Credentials = credentials.NewStaticCredentialsProvider("none", "none", "") })
	}
	c.signer = s3.NewPresignClient(signing, s3.WithPresignExpires(linkExpiry))
	return c, nil
}

// providerOther is the provider of a server of which nothing is known.
const providerOther = "Other"

// withScheme is an endpoint as a URL; rclone takes it without a scheme, too.
func withScheme(endpoint string) string {
	if strings.HasPrefix(endpoint, "http://") || strings.HasPrefix(endpoint, "https://") {
		return endpoint
	}
	return "https://" + endpoint
}

// pathStyle reports whether this provider has the bucket in the path and not in the host. rclone knows it of all
// providers, and tells it by the URL that it would sign; nothing is sent.
func pathStyle(ctx context.Context, bucket string, values configmap.Simple) (bool, error) {
	const object = "object"
	backend, err := rclone.Find("s3")
	if err != nil {
		return false, fmt.Errorf("rclone's s3 backend: %w", err)
	}
	guess := configmap.Simple{}
	for name, value := range values {
		guess[name] = value
	}
	// No credentials are looked for, and no object.
	for name, value := range map[string]string{
		"env_auth": "false", "access_key_id": "guess", "secret_access_key": "guess", "session_token": "",
		"role_arn":       "",
		"no_head_object": "true", "directory_bucket": "false",
	} {
		guess[name] = value
	}
	own, config := rclone.AddConfig(context.WithoutCancel(ctx))
	if err := configureRclone(config, tlsOptions{}, Options{}.defaults()); err != nil {
		return false, err
	}
	remote, err := backend.NewFs(own, "s3", bucket+"/", guess)
	if err != nil {
		return false, err
	}
	link, err := remote.Features().PublicLink(own, object, rclone.Duration(linkExpiry), false)
	if err != nil {
		return false, err
	}
	u, err := url.Parse(link)
	if err != nil {
		return false, errors.New("rclone signs what is no URL")
	}
	return strings.HasSuffix(u.Path, "/"+bucket+"/"+object), nil
}

// awsConfig has the region and the keys: those that are given, those of the environment, or none.
func (o *bucketOptions) awsConfig(ctx context.Context) (config aws.Config, err error) {
	switch given := o.AccessKeyID != "" || o.SecretAccessKey != ""; {
	case given && o.AccessKeyID == "":
		return config, errors.New("option secret_access_key is given without access_key_id")
	case given && o.SecretAccessKey == "":
		return config, errors.New("option access_key_id is given without secret_access_key")
	case given:
		config.Credentials = credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, o.SessionToken)
	case o.EnvAuth:
		if config, err = o.fromEnvironment(ctx); err != nil {
			return config, err
		}
	default:
		config.Credentials = aws.AnonymousCredentials{}
	}
	config.Region = o.Region
	if config.Region == "" {
		config.Region = "us-east-1"
	}
	if o.RoleARN != "" {
		config.Credentials = o.role(config)
	}
	return config, nil
}

// fromEnvironment finds credentials as the AWS SDK does: variables, files, the machine's own.
func (o *bucketOptions) fromEnvironment(ctx context.Context) (aws.Config, error) {
	var with []func(*awsconfig.LoadOptions) error
	if o.Profile != "" {
		with = append(with, awsconfig.WithSharedConfigProfile(o.Profile))
	}
	if o.SharedCredentialsFile != "" {
		with = append(with, awsconfig.WithSharedConfigFiles([]string{o.SharedCredentialsFile}))
	}
	config, err := awsconfig.LoadDefaultConfig(ctx, with...)
	if err != nil {
		return config, fmt.Errorf("option env_auth: %w", err)
	}
	return config, nil
}

// role has the credentials of a role, taken on with those of config.
func (o *bucketOptions) role(config aws.Config) aws.CredentialsProvider {
	adapt := func(a *stscreds.AssumeRoleOptions) {
		if o.RoleSessionName != "" {
			a.RoleSessionName = o.RoleSessionName
		}
		if o.RoleSessionDuration > 0 {
			a.Duration = time.Duration(o.RoleSessionDuration)
		}
		if o.RoleExternalID != "" {
			a.ExternalID = aws.String(o.RoleExternalID)
		}
	}
	return aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(config), o.RoleARN, adapt))
}

// plainlySigned keeps out of requests what some servers and the proxies before them change or do not know: the header
// Accept-Encoding is not signed, and the parameter x-id is not sent.
func plainlySigned(stack *middleware.Stack) error {
	plain := middleware.FinalizeMiddlewareFunc("PlainRequest",
		func(ctx context.Context, in middleware.FinalizeInput,
			next middleware.FinalizeHandler,
		) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if req, ok := in.Request.(*smithyhttp.Request); ok {
				req.Header.Del("Accept-Encoding")
				if query := req.URL.Query(); query.Has("x-id") {
					query.Del("x-id")
					req.URL.RawQuery = query.Encode()
				}
			}
			return next.HandleFinalize(ctx, in)
		})
	signing := "Signing"
	if _, ok := stack.Finalize.Get(signing); !ok {
		signing = "PresignHTTPRequest"
	}
	return stack.Finalize.Insert(plain, signing, middleware.Before)
}

// listDoer sends the SDK's requests, which are listings. It measures silence, as for all bodies, and not how long one
// takes.
type listDoer struct{ client *httpClient }

func (d listDoer) Do(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	req = req.WithContext(ctx)
	req.Header.Set("User-Agent", d.client.header.Get("User-Agent"))
	resp, err := d.client.lists.RoundTrip(req)
	if err != nil {
		err = explain(ctx, err, req.URL.Host, d.client.timeout)
		cancel(nil)
		return nil, err
	}
	cacheclient.Heard(ctx)
	patient := newPatientReader(ctx, cancel, resp.Body, req.URL.Host, d.client.timeout)
	bounded := &boundedBody{ReadCloser: heardBody{patient, ctx}, left: mostExplanation, host: req.URL.Host}
	resp.Body = bounded
	if page, ok := ctx.Value(pageKey{}).(*listPage); ok && resp.StatusCode < http.StatusMultipleChoices {
		bounded.left = mostListing
		if err := takePage(resp, page); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// takePage reads the page that a response is, of which the SDK gets nothing to read: it would take what is no listing
// for an empty one.
func takePage(resp *http.Response, page *listPage) error {
	defer func(body io.Closer) { _ = body.Close() }(resp.Body)
	err := readPage(resp.Body, page)
	if errors.Is(err, errElse) {
		return fmt.Errorf("%s is asked for a listing and %w", resp.Request.URL.Host, err)
	}
	resp.Body = io.NopCloser(strings.NewReader("<ListBucketResult></ListBucketResult>"))
	return err
}

// A page of a listing is kept in memory, and what is sent beside another status: mostListing and mostExplanation
// bound them, in bytes.
const mostListing, mostExplanation = 64 << 20, 64 << 10

// boundedBody fails after so many bytes, which its user may set anew.
type boundedBody struct {
	io.ReadCloser
	left int64
	host string
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%s sends more than a listing or the reason of a refusal can be: %w", b.host,
			cacheclient.ErrTooLarge)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// get and head are the requests for an object, signed; both are used at once.
func (c *s3Client) get(ctx context.Context, key, show string) (request, error) {
	signed, err := c.signer.PresignGetObject(ctx, &s3.GetObjectInput{
		Bucket: &c.bucket, Key: &key,
		RequestPayer: c.payer,
	})
	if err != nil {
		return request{}, signingError(show, err)
	}
	return c.request(signed.URL, show)
}

func (c *s3Client) head(ctx context.Context, key, show string) (request, error) {
	signed, err := c.signer.PresignHeadObject(ctx, &s3.HeadObjectInput{
		Bucket: &c.bucket, Key: &key,
		RequestPayer: c.payer,
	})
	if err != nil {
		return request{}, signingError(show, err)
	}
	return c.request(signed.URL, show)
}

func signingError(show string, err error) error {
	return fmt.Errorf("%s: the request cannot be signed: %w", show, err)
}

// request is for a signed URL.
func (c *s3Client) request(signed, show string) (request, error) {
	u, err := url.Parse(signed)
	if err != nil {
		return request{}, fmt.Errorf("%s: its signed URL is not valid", show)
	}
	if c.anonymous {
		u.RawQuery = ""
	}
	return request{url: u, show: show}, nil
}
