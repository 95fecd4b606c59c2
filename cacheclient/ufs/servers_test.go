package ufs

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/rclone/rclone/backend/local"

	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/sanity/pace"
)

const manyFiles = 10000

func TestLocal(t *testing.T) {
	tr := sharedTree(t)
	for _, source := range []string{tr.dir, "file://" + tr.dir} {
		runSuite(t, mustOpen(t, source, Options{}), tr, abilities{complete: true})
	}
	testBig(t, mustOpen(t, tr.big, Options{}))
}

// runHTTP runs the suite on a server of the directory that has the tree and the big file.
func runHTTP(t *testing.T, root string, tr *tree, can abilities) {
	t.Helper()
	runSuite(t, mustOpen(t, root+"/tree", Options{}), tr, can)
	t.Run("root with odd name", func(t *testing.T) {
		store := mustOpen(t, root+"/tree/odd%20dirs/d%20hash%231.txt/", Options{})
		if names, _ := listNames(t, store, ""); len(names) != 1 || names[0] != "inside.txt" {
			t.Errorf("%q", names)
		}
		if info, err := store.Stat(testContext(t), "inside.txt"); err != nil || info.Size != int64(len("hash#1.txt")) {
			t.Errorf("%+v, %v", info, err)
		}
	})
	if !can.noRanges {
		t.Run("big", func(t *testing.T) { testBig(t, mustOpen(t, root+"/bigtree/", Options{})) })
	}
}

func TestGoFileServer(t *testing.T) {
	tr := sharedTree(t)
	server := httptest.NewServer(http.StripPrefix("/base/", http.FileServer(http.Dir(base))))
	t.Cleanup(server.Close)
	runHTTP(t, server.URL+"/base", tr, abilities{unlisted: map[string]string{
		"amp&": "Go's server does not escape & in a link, so that this name means another",
	}})
}

func TestPythonServer(t *testing.T) {
	pace.Long(t)
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	tr := sharedTree(t)
	address := startServer(t, "", func(address string) *exec.Cmd {
		host, port, _ := net.SplitHostPort(address)
		return exec.Command(python, "-m", "http.server", "--bind", host, "--directory", base, port)
	})
	runHTTP(t, "http://"+address, tr, abilities{noRanges: true})
}

func TestNginx(t *testing.T) {
	pace.Long(t)
	nginx := lookPath(t, "nginx")
	for _, exact := range []string{"on", "off"} {
		t.Run("autoindex_exact_size "+exact, func(t *testing.T) {
			tr := sharedTree(t)
			dir := t.TempDir()
			config := filepath.Join(dir, "nginx.conf")
			address := startServer(t, dir, func(address string) *exec.Cmd {
				write(t, config, fmt.Sprintf(`
daemon off; pid %[1]s/pid; error_log %[1]s/log; worker_processes 1; %[5]s
events { worker_connections 128; }
http {
  access_log off; default_type application/octet-stream; types { text/html html; }
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  gzip on; gzip_types *; gzip_min_length 1;
  server { listen %[2]s; root %[3]s; charset utf-8; location / { autoindex on; autoindex_exact_size %[4]s; } }
}`, dir, address, base, exact, nginxUser()))
				return exec.Command(nginx, "-c", config, "-p", dir, "-e", filepath.Join(dir, "log"))
			})
			runHTTP(t, "http://"+address, tr, abilities{})
		})
	}
}

// nginxUser keeps workers the user of the test, which may read its files.
func nginxUser() string {
	if u, err := user.Current(); err == nil && u.Uid == "0" {
		return "user root;"
	}
	return ""
}

func TestApache(t *testing.T) {
	pace.Long(t)
	apache := lookPath(t, "apache2", "httpd")
	modules := apacheModules(t)
	for name, options := range map[string]string{
		"plain": "",
		"fancy": "IndexOptions FancyIndexing HTMLTable VersionSort NameWidth=20",
		"icons": "IndexOptions FancyIndexing IconsAreLinks NameWidth=* Charset=UTF-8\nAddIcon /icons/a.gif " +
			"^^DIRECTORY^^\nDefaultIcon /icons/b.gif",
		"encoding": "AddEncoding x-gzip .gz\nIndexOptions FancyIndexing FoldersFirst",
	} {
		t.Run(name, func(t *testing.T) {
			tr := sharedTree(t)
			dir := t.TempDir()
			config := filepath.Join(dir, "httpd.conf")
			address := startServer(t, dir, func(address string) *exec.Cmd {
				write(t, config, fmt.Sprintf(`
ServerRoot %[1]s
ServerName %[2]s
Listen %[2]s
PidFile %[1]s/pid
ErrorLog %[1]s/log
DefaultRuntimeDir %[1]s
Mutex posixsem
%[3]s
%[6]s
DocumentRoot %[4]s
TypesConfig /dev/null
<Directory %[4]s>
  Options Indexes FollowSymLinks
  Require all granted
  %[5]s
</Directory>
AddOutputFilterByType DEFLATE text/html text/plain application/octet-stream
AddType text/plain .txt
`, dir, address, modules, base, options, apacheUser()))
				return exec.Command(apache, "-f", config, "-DFOREGROUND")
			})
			runHTTP(t, "http://"+address, tr, abilities{})
		})
	}
}

func apacheUser() string {
	if os.Getuid() == 0 {
		return "User www-data\nGroup www-data"
	}
	return ""
}

func apacheModules(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/etc/httpd/modules"} {
		var config strings.Builder
		for _, name := range []string{
			"mpm_event", "authz_core", "autoindex", "dir", "mime", "alias", "filter",
			"deflate", "unixd",
		} {
			file := filepath.Join(dir, "mod_"+name+".so")
			if _, err := os.Stat(file); err == nil {
				fmt.Fprintf(&config, "LoadModule %s_module %s\n", name, file)
			}
		}
		if config.Len() > 0 {
			return config.String()
		}
	}
	t.Skip("needs Apache httpd's modules")
	return ""
}

func TestS3(t *testing.T) {
	pace.Long(t)
	tr := sharedTree(t)
	opts := s3Options(t, cachetest.ServeS3(t, base, "MD5", "1h"))
	runSuite(t, mustOpen(t, "s3://tree", opts), tr, abilities{complete: true, cached: true})
	t.Run("stale", func(t *testing.T) {
		opts := s3Options(t, cachetest.ServeS3(t, base, "MD5", "0s"))
		testStale(t, mustOpen(t, "s3://tree", opts), tr, abilities{contentVersion: true})
	})
	t.Run("prefix", func(t *testing.T) {
		names, _ := listNames(t, mustOpen(t, "s3://tree/odd dirs/", opts), "")
		if len(names) != len(oddNames) {
			t.Errorf("%d names", len(names))
		}
	})
	t.Run("without ETags", func(t *testing.T) {
		opts := s3Options(t, cachetest.ServeS3(t, base, "", "1h"))
		runSuite(t, mustOpen(t, "s3://tree", opts), tr, abilities{complete: true, cached: true})
		testBig(t, mustOpen(t, "s3://bigtree", opts))
	})
	for source, want := range map[string]string{
		"s3://nobucket":       "does not exist",
		"s3://tree/noprefix/": "does not exist",
		"s3://tree/data.bin":  "not a directory",
	} {
		if _, err := Open(testContext(t), source, opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// s3Options reach cachetest.ServeS3; its keys come from the environment.
func s3Options(t *testing.T, endpoint string) Options {
	t.Helper()
	t.Setenv("UFS_TEST_KEY", "key")
	t.Setenv("UFS_TEST_SECRET", "secret")
	return Options{Values: map[string]string{
		"provider": "Rclone", "endpoint": endpoint, "access_key_id": "env:UFS_TEST_KEY",
		"secret_access_key": "env:UFS_TEST_SECRET",
	}}
}

func lookPath(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
			if file, err := exec.LookPath(candidate); err == nil {
				return file
			}
		}
	}
	t.Skipf("needs %s", strings.Join(names, " or "))
	return ""
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startServer starts a server process on a free port of the loopback, and ends it with the test.
func startServer(t *testing.T, dir string, command func(address string) *exec.Cmd) (address string) {
	t.Helper()
	address = cachetest.FreeAddress(t)
	cmd := command(address)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-done:
		case <-time.After(pace.Limit(5 * time.Second)):
			_ = cmd.Process.Kill()
			<-done
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the server said: %s%s", output.Bytes(), log)
		}
	})
	cachetest.WaitListening(t, address, done)
	return address
}
