package objects

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// services are headless: one for each master, by whose name the others and all clients reach it wherever it runs, one
// for all masters and one for the workers. They name pods that are not ready, too: masters must find each other to
// become it.
func (b *builder) services() []Object {
	services := make([]Object, 0, masterCount(b.spec)+2)
	ports := []corev1.ServicePort{
		servicePort("rpc", b.ports.masterRPC), servicePort("web", b.ports.masterWeb),
		servicePort("journal", b.ports.masterJournal),
	}
	if b.jobs() {
		ports = append(ports, servicePort("job-rpc", b.ports.jobMasterRPC),
			servicePort("job-web", b.ports.jobMasterWeb), servicePort("job-journal", b.ports.jobMasterJournal))
	}
	for i := range masterCount(b.spec) {
		selector := PodLabels(b.names.name, RoleMaster)
		selector["statefulset.kubernetes.io/pod-name"] = b.names.master(i)
		s := b.service(b.names.master(i), selector, ports)
		if !b.spec.DisablePrometheus {
			// Fluid's scrape configuration looks for it.
			s.Labels["monitor"] = "alluxio_runtime_metrics"
		}
		services = append(services, s)
	}
	return append(services,
		b.service(b.names.masters(), PodLabels(b.names.name, RoleMaster), ports),
		b.service(b.names.workers(), PodLabels(b.names.name, RoleWorker), []corev1.ServicePort{
			servicePort("rpc", b.ports.workerRPC), servicePort("web", b.ports.workerWeb),
		}),
	)
}

func (b *builder) service(name string, selector map[string]string, ports []corev1.ServicePort) *corev1.Service {
	meta := b.meta(name)
	meta.Labels = map[string]string{appLabel: "alluxio", releaseLabel: b.names.name}
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true,
			Selector: selector, Ports: ports,
		},
	}
}

func servicePort(name string, port int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: port, TargetPort: intstr.FromInt32(port), Protocol: corev1.ProtocolTCP}
}
