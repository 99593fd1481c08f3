package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func writeObjects(out io.Writer) {
	all := knownTypes()
	fmt.Fprintf(out, "# Kind, the bytes that are stored (base64), and Kubernetes' JSON: written by tests/kube/schema from k8s.io/api %s.\n",
		version("k8s.io/api"))
	for _, kind := range kinds(all) {
		object, err := all.New(kind)
		if err != nil {
			panic(err)
		}
		writeObject(out, all, kind, object)
	}
	for _, object := range examples() {
		kinds, _, err := all.ObjectKinds(object)
		if err != nil {
			panic(err)
		}
		writeObject(out, all, kinds[0], object)
	}
}

func writeObject(out io.Writer, all *runtime.Scheme, kind schema.GroupVersionKind, object runtime.Object) {
	proto := protobuf.NewSerializer(all, all)
	codecs := serializer.NewCodecFactory(all)
	stored, err := runtime.Encode(codecs.EncoderForVersion(proto, kind.GroupVersion()), object)
	if err != nil {
		panic(err)
	}
	// What JSON has is what comes out of the stored bytes: protobuf has no empty list that is not nil.
	again, _, err := proto.Decode(stored, nil, nil)
	if err != nil {
		panic(err)
	}
	text := jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, all, all, jsonserializer.SerializerOptions{})
	shown, err := runtime.Encode(codecs.EncoderForVersion(text, kind.GroupVersion()), again)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(out, "%s %s %s %s", kind.GroupVersion(), kind.Kind, base64.StdEncoding.EncodeToString(stored), shown)
}

func pointer[T any](value T) *T { return &value }

var (
	noon   = metav1.NewTime(time.Date(2026, 2, 28, 12, 0, 59, 0, time.UTC))
	before = metav1.NewTime(time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC))
	micro  = metav1.NewMicroTime(time.Date(2024, 2, 29, 23, 59, 59, 123456000, time.UTC))
)

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name, Namespace: namespace, UID: "0b7a1d3c-6e4c-4f0e-9f3a-4f7a31d0c001", Generation: 3,
		CreationTimestamp: noon, DeletionTimestamp: &before, DeletionGracePeriodSeconds: pointer(int64(30)),
		Labels:      map[string]string{"app": name, "": "empty key", "empty": ""},
		Annotations: map[string]string{"note": "line one\nline two: ünïcode <&> \u2028 \x00\"\\"},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "owner", UID: "u", Controller: pointer(true), BlockOwnerDeletion: pointer(false),
		}},
		Finalizers: []string{"example.invalid/wait"},
		ManagedFields: []metav1.ManagedFieldsEntry{{
			Manager: "kubectl", Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1", Time: &noon, FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:app":{},".":{}}}}`),
		}},
	}
}

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: podSpec()}
}

func podSpec() corev1.PodSpec {
	probe := func(handler corev1.ProbeHandler) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 10, FailureThreshold: -1}
	}
	return corev1.PodSpec{
		Volumes: []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, DefaultMode: pointer(int32(0o644)),
				Items: []corev1.KeyToPath{{Key: "a", Path: "b"}},
			}}},
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: pointer(resource.MustParse("1Gi"))}}},
			{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: pointer(int64(3607)), Path: "token"}},
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
					Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1m")}}}}},
			}}}},
		},
		Containers: []corev1.Container{{
			Name: "web", Image: "registry.invalid/web:1", Command: []string{"serve", "--port=80"},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: corev1.ProtocolTCP}},
			Env: []corev1.EnvVar{
				{Name: "A", Value: "1"},
				{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k", Optional: pointer(false)}}},
			},
			EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}},
			Resources: corev1.ResourceRequirements{
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("128Mi"), "x/y": resource.MustParse("0")},
				Requests: corev1.ResourceList{"cpu": resource.MustParse("0.1"), "memory": resource.MustParse("1e3")},
			},
			LivenessProbe:  probe(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http"), Scheme: "HTTP"}}),
			ReadinessProbe: probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}),
			StartupProbe:   probe(corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1, Service: pointer("")}}),
			Lifecycle:      &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}},
			SecurityContext: &corev1.SecurityContext{RunAsUser: pointer(int64(0)), Privileged: pointer(false),
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}, Drop: []corev1.Capability{"ALL"}}},
		}},
		EphemeralContainers: []corev1.EphemeralContainer{{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "sh", TTY: true}, TargetContainerName: "web"}},
		NodeSelector: map[string]string{"zone": "a"}, TerminationGracePeriodSeconds: pointer(int64(0)), HostNetwork: true,
		SecurityContext: &corev1.PodSecurityContext{SupplementalGroups: []int64{1, 300, -1}},
		Tolerations:     []corev1.Toleration{{Key: "node", Operator: "Exists", TolerationSeconds: pointer(int64(300))}},
		Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: "In", Values: []string{"x"}}}}},
		}}},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: "DoNotSchedule",
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}},
		Overhead: corev1.ResourceList{"cpu": resource.MustParse("250m")},
	}
}

// examples are objects as they stand in clusters.
func examples() []runtime.Object {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	deployment := &appsv1.Deployment{ObjectMeta: meta("default", "web"), Spec: appsv1.DeploymentSpec{
		Replicas: pointer(int32(0)), Selector: selector, Template: template(),
		Strategy: appsv1.DeploymentStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateDeployment{
			MaxUnavailable: pointer(intstr.FromString("25%")), MaxSurge: pointer(intstr.FromInt32(0))}},
	}, Status: appsv1.DeploymentStatus{ObservedGeneration: 2, Conditions: []appsv1.DeploymentCondition{{
		Type: "Available", Status: "True", LastUpdateTime: noon, Reason: "MinimumReplicasAvailable"}}}}
	maximum := 1e3
	schemaProps := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"size": {Type: "integer", Format: "int32", Maximum: &maximum, Minimum: pointer(-0.5), MaxLength: pointer(int64(0)),
			Default: &apiextensionsv1.JSON{Raw: []byte(`{"b":[1,2.5,"x",null],"a":true}`)}, Enum: []apiextensionsv1.JSON{{Raw: []byte(`1`)}, {Raw: []byte(`"two"`)}}},
		"list":  {Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}},
		"tuple": {Items: &apiextensionsv1.JSONSchemaPropsOrArray{JSONSchemas: []apiextensionsv1.JSONSchemaProps{{Type: "string"}, {}}}},
		"open":  {AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true}, XPreserveUnknownFields: pointer(true)},
		"shut":  {AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{}, Ref: pointer("#/x")},
		"map":   {AdditionalProperties: &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true, Schema: &apiextensionsv1.JSONSchemaProps{Type: "string"}}},
		"deps": {Dependencies: apiextensionsv1.JSONSchemaDependencies{"a": {Property: []string{"b"}}, "c": {Schema: &apiextensionsv1.JSONSchemaProps{}}, "d": {}},
			XValidations: apiextensionsv1.ValidationRules{{Rule: "self > 0", OptionalOldSelf: pointer(true)}}},
	}}
	return []runtime.Object{
		&corev1.Pod{ObjectMeta: meta("default", "web-0"), Spec: podSpec(), Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &noon, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}, QOSClass: "Burstable",
			Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True", LastTransitionTime: noon}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "web", RestartCount: 2, Started: pointer(true),
				State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: -9, StartedAt: noon}}}},
		}},
		deployment,
		&appsv1.StatefulSet{ObjectMeta: meta("default", "db"), Spec: appsv1.StatefulSetSpec{ServiceName: "db", Selector: selector, Template: template(),
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}}},
		&appsv1.DaemonSet{ObjectMeta: meta("kube-system", "proxy"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template()}},
		&appsv1.ControllerRevision{ObjectMeta: meta("default", "db-1"), Revision: 1 << 40, Data: runtime.RawExtension{Raw: []byte(`{"spec":{"replicas":1e2}}`)}},
		&corev1.Service{ObjectMeta: meta("default", "web"), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.7", ClusterIPs: []string{"10.0.0.7"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http"), NodePort: 30080, AppProtocol: pointer("h2c")}}}},
		&corev1.Secret{ObjectMeta: meta("default", "s"), Type: corev1.SecretTypeOpaque, Immutable: pointer(false),
			Data: map[string][]byte{"binary": {0, 1, 2, 0xff}, "empty": {}, "text": []byte("passw0rd")}},
		&corev1.ConfigMap{ObjectMeta: meta("default", "c"), Data: map[string]string{"a.conf": "x = 1\ny = 2\n", "yes": "no", "tilde": "~", "number": "1.0", "space": " x "},
			BinaryData: map[string][]byte{"b": {0x80}}},
		&corev1.Event{ObjectMeta: meta("default", "web.17"), InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", FieldPath: "spec.containers{web}"},
			Reason: "Started", FirstTimestamp: noon, EventTime: micro, Count: 7, Series: &corev1.EventSeries{Count: 1, LastObservedTime: micro}},
		&eventsv1.Event{ObjectMeta: meta("default", "web.18"), EventTime: metav1.NewMicroTime(noon.Time), DeprecatedSource: corev1.EventSource{Component: "kubelet"}},
		&coordinationv1.Lease{ObjectMeta: meta("kube-node-lease", "n1"), Spec: coordinationv1.LeaseSpec{HolderIdentity: pointer("n1"),
			LeaseDurationSeconds: pointer(int32(40)), RenewTime: &micro, Strategy: pointer(coordinationv1.OldestEmulationVersion)}},
		&corev1.Node{ObjectMeta: meta("", "n1"), Spec: corev1.NodeSpec{PodCIDRs: []string{"10.1.0.0/24"}, Taints: []corev1.Taint{{Key: "k", Effect: "NoSchedule", TimeAdded: &noon}}},
			Status: corev1.NodeStatus{Capacity: corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("24576Mi"), "pods": resource.MustParse("110")},
				Images: []corev1.ContainerImage{{Names: []string{"a", "b"}, SizeBytes: 1 << 33}}, DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: 10250}}}},
		&corev1.PersistentVolumeClaim{ObjectMeta: meta("default", "data"), Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: pointer(""),
			AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("10Gi")}},
			DataSourceRef: &corev1.TypedObjectReference{Kind: "VolumeSnapshot", Name: "s"}}},
		&corev1.PersistentVolume{ObjectMeta: meta("", "pv"), Spec: corev1.PersistentVolumeSpec{Capacity: corev1.ResourceList{"storage": resource.MustParse("1.5Ti")},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h", VolumeAttributes: map[string]string{"a": "b"}}}}},
		&corev1.Endpoints{ObjectMeta: meta("default", "kubernetes"), Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}}, Ports: []corev1.EndpointPort{{Port: 6443}}}}},
		&corev1.RangeAllocation{ObjectMeta: meta("", "r"), Range: "10.0.0.0/24", Data: []byte{3, 0, 0, 0x80}},
		&discoveryv1.EndpointSlice{ObjectMeta: meta("default", "web-x"), AddressType: "IPv4", Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.9"},
			Conditions: discoveryv1.EndpointConditions{Ready: pointer(false)}, TargetRef: &corev1.ObjectReference{Kind: "Pod"}}}, Ports: []discoveryv1.EndpointPort{{Port: pointer(int32(80))}}},
		&networkingv1.NetworkPolicy{ObjectMeta: meta("default", "deny"), Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress"},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{}, {Ports: []networkingv1.NetworkPolicyPort{{Port: pointer(intstr.FromInt32(53)), EndPort: pointer(int32(60))}},
				From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}}}, {PodSelector: &metav1.LabelSelector{}}}}}}},
		&networkingv1.Ingress{ObjectMeta: meta("default", "web"), Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{Host: "a.invalid", IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/", Backend: networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}}},
		&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta("default", "web"), Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: pointer(int32(1)), MaxReplicas: 9,
			Metrics: []autoscalingv2.MetricSpec{{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: autoscalingv2.MetricTarget{
				Type: "Utilization", AverageUtilization: pointer(int32(80)), AverageValue: pointer(resource.MustParse("100m"))}}}},
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: pointer(int32(0)), Tolerance: pointer(resource.MustParse("0.05"))}}}},
		&batchv1.CronJob{ObjectMeta: meta("default", "nightly"), Spec: batchv1.CronJobSpec{Schedule: "0 0 * * *", TimeZone: pointer("Etc/UTC"), Suspend: pointer(false),
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template(), BackoffLimit: pointer(int32(0)), CompletionMode: pointer(batchv1.IndexedCompletion)}}},
			Status: batchv1.CronJobStatus{LastScheduleTime: &noon}},
		&rbacv1.ClusterRole{ObjectMeta: meta("", "view"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"get", "*"}, APIGroups: []string{""}, Resources: []string{"pods"}}, {}},
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "true"}}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("default", "b"), Subjects: []rbacv1.Subject{{Kind: "User", Name: "u", APIGroup: "rbac.authorization.k8s.io"}}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"}},
		&policyv1.PodDisruptionBudget{ObjectMeta: meta("default", "web"), Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: pointer(intstr.FromString("50%")), Selector: selector},
			Status: policyv1.PodDisruptionBudgetStatus{DisruptedPods: map[string]metav1.Time{"web-0": noon, "web-1": {}}}},
		&storagev1.StorageClass{ObjectMeta: meta("", "fast"), Provisioner: "p", Parameters: map[string]string{"type": "ssd"}, AllowVolumeExpansion: pointer(true),
			AllowedTopologies: []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: "zone", Values: []string{"a"}}}}}},
		&storagev1.CSIDriver{ObjectMeta: meta("", "d"), Spec: storagev1.CSIDriverSpec{AttachRequired: pointer(false), TokenRequests: []storagev1.TokenRequest{{Audience: "", ExpirationSeconds: pointer(int64(600))}}}},
		&certificatesv1.CertificateSigningRequest{ObjectMeta: meta("", "csr"), Spec: certificatesv1.CertificateSigningRequestSpec{Request: []byte("-----BEGIN"), SignerName: "s",
			Usages: []certificatesv1.KeyUsage{"client auth"}, Extra: map[string]certificatesv1.ExtraValue{"scopes": {"a", ""}, "none": {}}},
			Status: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte{0x30, 0x82}}},
		&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: meta("", "hook"), Webhooks: []admissionv1.ValidatingWebhook{{Name: "a.b.c",
			ClientConfig: admissionv1.WebhookClientConfig{CABundle: []byte("ca"), Service: &admissionv1.ServiceReference{Namespace: "n", Name: "s", Port: pointer(int32(443))}},
			Rules:        []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{"*"}, Rule: admissionv1.Rule{APIGroups: []string{"*"}, Scope: pointer(admissionv1.AllScopes)}}},
			SideEffects:  pointer(admissionv1.SideEffectClassNone)}}},
		&resourcev1.ResourceSlice{ObjectMeta: meta("", "gpus"), Spec: resourcev1.ResourceSliceSpec{Driver: "gpu.invalid", NodeName: pointer("n1"), Pool: resourcev1.ResourcePool{Name: "n1", ResourceSliceCount: 1},
			Devices: []resourcev1.Device{{Name: "gpu-0", Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: pointer("x")}, "index": {IntValue: pointer(int64(0))}, "on": {BoolValue: pointer(false)}},
				Capacity: map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"memory": {Value: resource.MustParse("40Gi")}}}}}},
		&resourcev1.ResourceClaim{ObjectMeta: meta("default", "claim"), Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Config: []resourcev1.DeviceClaimConfiguration{{
			DeviceConfiguration: resourcev1.DeviceConfiguration{Opaque: &resourcev1.OpaqueDeviceConfiguration{Driver: "d", Parameters: runtime.RawExtension{Raw: []byte(`{"kind":"Config"}`)}}}}}}}},
		&apiextensionsv1.CustomResourceDefinition{ObjectMeta: meta("", "gizmos.example.invalid"), Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.invalid",
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "gizmos", Kind: "Gizmo", ShortNames: []string{"gz"}}, Scope: "Namespaced",
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &schemaProps},
				Subresources:             &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
				AdditionalPrinterColumns: []apiextensionsv1.CustomResourceColumnDefinition{{Name: "Size", Type: "integer", JSONPath: ".spec.size"}}}}}},
		&apiregistrationv1.APIService{ObjectMeta: meta("", "v1.apps"), Spec: apiregistrationv1.APIServiceSpec{Group: "apps", Version: "v1", GroupPriorityMinimum: 17800, VersionPriority: 15}},
	}
}
