package objects

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// ports are those of all parts.
type ports struct {
	// gateway is where the first gateway serves S3, each next one on the next port; masterGateway and workerGateway are
	// where they tell their health and metrics, beside a master and beside a worker.
	gateway                                      portRow
	masterGateway, workerGateway                 gatewayPorts
	masterRPC, masterWeb, masterJournal          int32
	workerRPC, workerWeb                         int32
	jobMasterRPC, jobMasterWeb, jobMasterJournal int32
	jobWorkerRPC, jobWorkerWeb, jobWorkerData    int32
}

// gatewayPorts are where the process of all gateways tells that it serves, and each of them its health and metrics.
type gatewayPorts struct {
	door int32
	portRow
}

// portRow are the ports of several gateways.
type portRow struct{ first, step int32 }

// at is the port of the i-th gateway.
func (r portRow) at(i int32) int32 { return r.first + i*r.step }

// firstGatewayPort is where the first gateway serves S3 in a network of the pod's own; its health is on the next port,
// and then comes the next gateway. The process of all of them has the port before.
const firstGatewayPort = 9063

// gatewayKey is the name, among the ports of masters and workers, of the first port of the gateways beside them.
const gatewayKey = "gateway"

// The ports that Datasets on their nodes' network take, below those that Kubernetes and Linux give away.
const (
	firstHostPort = 10240
	lastHostPort  = 29999
)

// hostPort is the first port of a Dataset whose pods are on the network of their nodes. It follows from the name, so
// that two Datasets seldom meet, and stays.
func hostPort(n names, count int) int32 {
	sum := sha256.Sum256([]byte(n.namespace + "/" + n.name))
	return firstHostPort + int32(binary.BigEndian.Uint32(sum[:])%uint32(lastHostPort+1-firstHostPort-count))
}

// portName is how a port is called in a spec, in Alluxio's properties, and what it is by default.
type portName struct {
	// field is the part in the runtime's spec, key the name among its ports.
	field, key string
	property   string
	standard   int32
	into       func(*ports) *int32
	of         func(*v1alpha1.AlluxioRuntimeSpec) *v1alpha1.ComponentSpec
}

func master(s *v1alpha1.AlluxioRuntimeSpec) *v1alpha1.ComponentSpec {
	return &s.Master.ComponentSpec
}
func worker(s *v1alpha1.AlluxioRuntimeSpec) *v1alpha1.ComponentSpec    { return &s.Worker }
func jobMaster(s *v1alpha1.AlluxioRuntimeSpec) *v1alpha1.ComponentSpec { return &s.JobMaster }
func jobWorker(s *v1alpha1.AlluxioRuntimeSpec) *v1alpha1.ComponentSpec { return &s.JobWorker }

// portNames are all ports of Alluxio. They are fixed where a pod has an address of its own. On the node's network they
// are the Dataset's, and all can be changed. D-073 says why.
var portNames = []portName{
	{"master", "rpc", "alluxio.master.rpc.port", 19998, func(p *ports) *int32 { return &p.masterRPC }, master},
	{"master", "web", "alluxio.master.web.port", 19999, func(p *ports) *int32 { return &p.masterWeb }, master},
	{
		"master", "embeddedJournal", "alluxio.master.embedded.journal.port", 19200,
		func(p *ports) *int32 { return &p.masterJournal }, master,
	},
	{"worker", "rpc", "alluxio.worker.rpc.port", 29999, func(p *ports) *int32 { return &p.workerRPC }, worker},
	{"worker", "web", "alluxio.worker.web.port", 30000, func(p *ports) *int32 { return &p.workerWeb }, worker},
	{
		"jobMaster", "rpc", "alluxio.job.master.rpc.port", 20001, func(p *ports) *int32 { return &p.jobMasterRPC },
		jobMaster,
	},
	{
		"jobMaster", "web", "alluxio.job.master.web.port", 20002, func(p *ports) *int32 { return &p.jobMasterWeb },
		jobMaster,
	},
	{
		"jobMaster", "embeddedJournal", "alluxio.job.master.embedded.journal.port", 20003,
		func(p *ports) *int32 { return &p.jobMasterJournal }, jobMaster,
	},
	{
		"jobWorker", "rpc", "alluxio.job.worker.rpc.port", 30001, func(p *ports) *int32 { return &p.jobWorkerRPC },
		jobWorker,
	},
	{
		"jobWorker", "data", "alluxio.job.worker.data.port", 30002, func(p *ports) *int32 { return &p.jobWorkerData },
		jobWorker,
	},
	{
		"jobWorker", "web", "alluxio.job.worker.web.port", 30003, func(p *ports) *int32 { return &p.jobWorkerWeb },
		jobWorker,
	},
}

// onHost reports whether a part of Alluxio is on its node's network. Job servers are in the pods of the others.
func onHost(spec *v1alpha1.AlluxioRuntimeSpec, field string) bool {
	part := &spec.Worker
	if field == "master" || field == "jobMaster" {
		part = &spec.Master.ComponentSpec
	}
	return part.NetworkMode == v1alpha1.HostNetwork
}

// resolvePorts reads the ports of a runtime: a property wins over the part's ports, and that over the standard, or on
// the node's network over the Dataset's.
func resolvePorts(dataset names, spec *v1alpha1.AlluxioRuntimeSpec, gateways int) (ports, []Problem) {
	var p ports
	var problems []Problem
	known := map[string][]string{"master": {gatewayKey}, "worker": {gatewayKey}}
	gateways = reserved(gateways)
	host := hostPort(dataset, len(portNames)+2+3*gateways)
	for i, n := range portNames {
		known[n.field] = append(known[n.field], n.key)
		port, field := int(n.standard), ""
		if onHost(spec, n.field) {
			port = int(host) + i
		}
		if given, ok := n.of(spec).Ports[n.key]; ok {
			port, field = given, fmt.Sprintf("AlluxioRuntime.spec.%s.ports[%s]", n.field, n.key)
		}
		if given, ok := propertyOf(spec, n.of(spec), n.property); ok {
			parsed, err := strconv.Atoi(given)
			port, field = parsed, fmt.Sprintf("AlluxioRuntime.spec.properties[%s]", n.property)
			if err != nil {
				port = 0
			}
		}
		if port < 1 || port > 65535 {
			problems = append(problems, Problem{field, "is no port; accepted are 1 to 65535"})
		}
		*n.into(&p) = int32(port)
	}
	problems = append(problems, p.resolveGateways(spec, host+int32(len(portNames)), int32(gateways))...)
	for _, field := range slices.Sorted(maps.Keys(known)) {
		for _, n := range portNames {
			if n.field != field {
				continue
			}
			for _, key := range slices.Sorted(maps.Keys(n.of(spec).Ports)) {
				if !slices.Contains(known[field], key) {
					problems = append(problems, Problem{
						fmt.Sprintf("AlluxioRuntime.spec.%s.ports[%s]", field, key),
						"is not known; accepted are " + strings.Join(known[field], ", "),
					})
				}
			}
			break
		}
	}
	return p, problems
}

// resolveGateways finds the ports of gateways, from host on where pods are on their nodes' network: there a node may
// have a master and a worker of the Dataset, whose gateways serve S3 on one port that they share, as it is in the
// options of Alluxio's mounts, and tell their health on ports of their own.
func (p *ports) resolveGateways(spec *v1alpha1.AlluxioRuntimeSpec, host, gateways int32) []Problem {
	p.gateway = portRow{firstGatewayPort, 2}
	p.masterGateway = gatewayPorts{firstGatewayPort - 1, portRow{firstGatewayPort + 1, 2}}
	p.workerGateway = p.masterGateway
	if onHost(spec, "master") || onHost(spec, "worker") {
		p.gateway = portRow{host + 2, 3}
		p.masterGateway = gatewayPorts{host, portRow{host + 3, 3}}
		p.workerGateway = gatewayPorts{host + 1, portRow{host + 4, 3}}
	}
	var problems []Problem
	for _, part := range []struct {
		field string
		given map[string]int
		into  *gatewayPorts
	}{{"master", spec.Master.Ports, &p.masterGateway}, {"worker", spec.Worker.Ports, &p.workerGateway}} {
		first, ok := part.given[gatewayKey]
		if !ok {
			continue
		}
		if first < 1 || first > 65535-int(gateways) {
			problems = append(problems, Problem{
				fmt.Sprintf("AlluxioRuntime.spec.%s.ports[%s]", part.field, gatewayKey),
				fmt.Sprintf("is no first port of %d; accepted are 1 to %d", gateways+1, 65535-gateways),
			})
			continue
		}
		*part.into = gatewayPorts{int32(first), portRow{int32(first) + 1, 1}}
	}
	return problems
}

// propertyOf is what the user says of a property, for all parts or for one.
func propertyOf(spec *v1alpha1.AlluxioRuntimeSpec, part *v1alpha1.ComponentSpec, name string) (string, bool) {
	if part != nil {
		if value, ok := part.Properties[name]; ok {
			return value, true
		}
	}
	value, ok := spec.Properties[name]
	return value, ok
}
