package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace.io/millrace/sanity/machines"
	"millrace.io/millrace/sanity/pattern"
)

// hbase is what the directory of HBase's stable release is like, 550 MiB in all.
var hbase = []struct {
	name string
	size int64
}{
	{"CHANGES.md", 521 << 10},
	{"RELEASENOTES.md", 312 << 10},
	{"api_compare_2.6.2_to_2.6.3.html", 148 << 10},
	{"hbase-2.6.3-bin.tar.gz", 262*1<<20 + 613<<10},
	{"hbase-2.6.3-client-bin.tar.gz", 251*1<<20 + 702<<10},
	{"hbase-2.6.3-src.tar.gz", 35*1<<20 + 411<<10},
}

const apacheService = "apache2"

// startMirror starts a machine with a web server, Apache httpd with its index pages, whose wire is a slow one.
func (r *rig) startMirror() (*machines.Machine, error) {
	m, err := r.cluster.AddMachine(r.ctx, "mirror", mirrorAddress)
	if err != nil {
		return nil, err
	}
	// The server's processes are not root, and go through here.
	if err := os.Chmod(r.cluster.Dir(), 0o711); err != nil {
		return nil, err
	}
	root := r.htdocs()
	stable := filepath.Join(root, "apache/hbase/stable")
	if err := os.MkdirAll(stable, 0o755); err != nil {
		return nil, err
	}
	for _, f := range hbase {
		if err := pattern.Write(filepath.Join(stable, f.name), f.name, f.size); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(r.cluster.Dir(), "httpd.conf")
	var modules strings.Builder
	for _, name := range []string{"mpm_event", "authz_core", "autoindex", "dir", "mime"} {
		fmt.Fprintf(&modules, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", name, name)
	}
	err = os.WriteFile(config, fmt.Appendf(nil, `ServerRoot /run
ServerName %s
Listen %s:80
PidFile /run/apache2.pid
ErrorLog /var/log/apache2-errors.log
DefaultRuntimeDir /run
Mutex posixsem
%sUser www-data
Group www-data
DocumentRoot %s
TypesConfig /dev/null
AddType text/html .html
<Directory %s>
  Options Indexes
  IndexOptions FancyIndexing HTMLTable NameWidth=*
  Require all granted
</Directory>
`, mirrorName, mirrorAddress, modules.String(), root, root), 0o600)
	if err != nil {
		return nil, err
	}
	return m, errors.Join(m.Limit(wire), r.startApache(m))
}

func (r *rig) htdocs() string { return filepath.Join(r.cluster.Dir(), "htdocs") }

// startApache returns when the server answers.
func (r *rig) startApache(m *machines.Machine) error {
	err := m.StartService(r.ctx, apacheService, "apache2", "-f", filepath.Join(r.cluster.Dir(), "httpd.conf"),
		"-DFOREGROUND")
	for range 100 {
		if err != nil {
			return err
		}
		conn, dialErr := m.Dial(r.ctx, "tcp", mirrorAddress+":80")
		if dialErr == nil {
			return conn.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	said, _ := os.ReadFile(m.Log(apacheService))
	return fmt.Errorf("Apache does not answer: %s", said)
}
