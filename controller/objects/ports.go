package objects

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// ports are those of all parts.
type ports struct {
	masterRPC, masterWeb, masterJournal          int32
	workerRPC, workerWeb                         int32
	jobMasterRPC, jobMasterWeb, jobMasterJournal int32
	jobWorkerRPC, jobWorkerWeb, jobWorkerData    int32
}

// The ports of gateways: S3 on one, health and metrics on the next.
const (
	firstGatewayPort = 9063
	portsOfGateway   = 2
)

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

// portNames are all ports. They are fixed: a pod has an address of its own, and on the node's network they can be
// changed. D-073 says why.
var portNames = []portName{
	{"master", "rpc", "alluxio.master.rpc.port", 19998, func(p *ports) *int32 { return &p.masterRPC }, master},
	{"master", "web", "alluxio.master.web.port", 19999, func(p *ports) *int32 { return &p.masterWeb }, master},
	{"master", "embeddedJournal", "alluxio.master.embedded.journal.port", 19200, func(p *ports) *int32 { return &p.masterJournal }, master},
	{"worker", "rpc", "alluxio.worker.rpc.port", 29999, func(p *ports) *int32 { return &p.workerRPC }, worker},
	{"worker", "web", "alluxio.worker.web.port", 30000, func(p *ports) *int32 { return &p.workerWeb }, worker},
	{"jobMaster", "rpc", "alluxio.job.master.rpc.port", 20001, func(p *ports) *int32 { return &p.jobMasterRPC }, jobMaster},
	{"jobMaster", "web", "alluxio.job.master.web.port", 20002, func(p *ports) *int32 { return &p.jobMasterWeb }, jobMaster},
	{"jobMaster", "embeddedJournal", "alluxio.job.master.embedded.journal.port", 20003, func(p *ports) *int32 { return &p.jobMasterJournal }, jobMaster},
	{"jobWorker", "rpc", "alluxio.job.worker.rpc.port", 30001, func(p *ports) *int32 { return &p.jobWorkerRPC }, jobWorker},
	{"jobWorker", "data", "alluxio.job.worker.data.port", 30002, func(p *ports) *int32 { return &p.jobWorkerData }, jobWorker},
	{"jobWorker", "web", "alluxio.job.worker.web.port", 30003, func(p *ports) *int32 { return &p.jobWorkerWeb }, jobWorker},
}

// resolvePorts reads the ports of a runtime: a property wins over the part's ports, and that over the standard.
func resolvePorts(spec *v1alpha1.AlluxioRuntimeSpec) (ports, []Problem) {
	var p ports
	var problems []Problem
	known := map[string][]string{}
	for _, n := range portNames {
		known[n.field] = append(known[n.field], n.key)
		port, field := int(n.standard), ""
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
