//! The pod fields that something honours, and a walk through the v1 schema which finds every
//! field that is neither here nor in the table of refused ones.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::schema::{Field, Kind, Resolved, Type, named, resolve};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::TABLE;

/// By type, the fields that are honoured: by the kubelet, or (placement: affinity, spread,
/// gates, group, priority, scheduler's name) by the scheduler, which refuses what it cannot
/// do, or (service account, priority class) by the API server.
///
/// Without an effect of their own: `resizePolicy` while there is no resize,
/// `fsGroupChangePolicy` for volumes that are always new, `seLinuxChangePolicy` without
/// SELinux, `localhostProfile` of AppArmor with a type that is refused.
const HONOURED: &[(&str, &str)] = &[
    (
        "apimachinery.pkg.apis.meta.v1.LabelSelector",
        "matchExpressions matchLabels",
    ),
    (
        "apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement",
        "key operator values",
    ),
    (
        "core.v1.Affinity",
        "nodeAffinity podAffinity podAntiAffinity",
    ),
    ("core.v1.AppArmorProfile", "localhostProfile"),
    ("core.v1.Capabilities", "add drop"),
    ("core.v1.ConfigMapEnvSource", "name optional"),
    ("core.v1.ConfigMapKeySelector", "key name optional"),
    ("core.v1.ConfigMapProjection", "items name optional"),
    (
        "core.v1.ConfigMapVolumeSource",
        "defaultMode items name optional",
    ),
    (
        "core.v1.Container",
        "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports \
         readinessProbe resizePolicy resources securityContext startupProbe stdin stdinOnce \
         terminationMessagePath terminationMessagePolicy tty volumeMounts workingDir",
    ),
    (
        "core.v1.ContainerPort",
        "containerPort hostIP hostPort name protocol",
    ),
    (
        "core.v1.ContainerResizePolicy",
        "resourceName restartPolicy",
    ),
    ("core.v1.DownwardAPIProjection", "items"),
    (
        "core.v1.DownwardAPIVolumeFile",
        "fieldRef mode path resourceFieldRef",
    ),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode items"),
    ("core.v1.EnvFromSource", "configMapRef prefix secretRef"),
    ("core.v1.EnvVar", "name value valueFrom"),
    (
        "core.v1.EnvVarSource",
        "configMapKeyRef fieldRef resourceFieldRef secretKeyRef",
    ),
    ("core.v1.ExecAction", "command"),
    ("core.v1.GRPCAction", "port service"),
    ("core.v1.HTTPGetAction", "host httpHeaders path port scheme"),
    ("core.v1.HTTPHeader", "name value"),
    ("core.v1.HostAlias", "hostnames ip"),
    ("core.v1.HostPathVolumeSource", "path type"),
    ("core.v1.KeyToPath", "key mode path"),
    ("core.v1.Lifecycle", "postStart preStop stopSignal"),
    ("core.v1.LifecycleHandler", "exec httpGet sleep"),
    ("core.v1.LocalObjectReference", "name"),
    (
        "core.v1.NodeAffinity",
        "preferredDuringSchedulingIgnoredDuringExecution \
         requiredDuringSchedulingIgnoredDuringExecution",
    ),
    ("core.v1.NodeSelector", "nodeSelectorTerms"),
    ("core.v1.NodeSelectorRequirement", "key operator values"),
    ("core.v1.NodeSelectorTerm", "matchExpressions matchFields"),
    ("core.v1.ObjectFieldSelector", "apiVersion fieldPath"),
    (
        "core.v1.PodAffinity",
        "preferredDuringSchedulingIgnoredDuringExecution \
         requiredDuringSchedulingIgnoredDuringExecution",
    ),
    (
        "core.v1.PodAffinityTerm",
        "labelSelector matchLabelKeys mismatchLabelKeys namespaceSelector namespaces \
         topologyKey",
    ),
    (
        "core.v1.PodAntiAffinity",
        "preferredDuringSchedulingIgnoredDuringExecution \
         requiredDuringSchedulingIgnoredDuringExecution",
    ),
    ("core.v1.PodDNSConfig", "nameservers options searches"),
    ("core.v1.PodDNSConfigOption", "name value"),
    ("core.v1.PodReadinessGate", "conditionType"),
    ("core.v1.PodSchedulingGate", "name"),
    ("core.v1.PodSchedulingGroup", "podGroupName"),
    (
        "core.v1.PodSecurityContext",
        "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser \
         seLinuxChangePolicy seccompProfile supplementalGroups supplementalGroupsPolicy \
         sysctls",
    ),
    (
        "core.v1.PodSpec",
        "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig \
         dnsPolicy enableServiceLinks hostAliases hostIPC hostNetwork hostPID hostname \
         imagePullSecrets initContainers nodeName nodeSelector os overhead preemptionPolicy \
         priority priorityClassName readinessGates restartPolicy schedulerName \
         schedulingGates schedulingGroup securityContext serviceAccount serviceAccountName \
         setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds \
         tolerations topologySpreadConstraints volumes",
    ),
    ("core.v1.PreferredSchedulingTerm", "preference weight"),
    (
        "core.v1.Probe",
        "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds \
         successThreshold tcpSocket terminationGracePeriodSeconds timeoutSeconds",
    ),
    ("core.v1.ProjectedVolumeSource", "defaultMode sources"),
    (
        "core.v1.ResourceFieldSelector",
        "containerName divisor resource",
    ),
    ("core.v1.ResourceRequirements", "limits requests"),
    ("core.v1.SeccompProfile", "localhostProfile type"),
    ("core.v1.SecretEnvSource", "name optional"),
    ("core.v1.SecretKeySelector", "key name optional"),
    ("core.v1.SecretProjection", "items name optional"),
    (
        "core.v1.SecretVolumeSource",
        "defaultMode items optional secretName",
    ),
    (
        "core.v1.SecurityContext",
        "allowPrivilegeEscalation appArmorProfile capabilities privileged \
         readOnlyRootFilesystem runAsGroup runAsNonRoot runAsUser seccompProfile",
    ),
    (
        "core.v1.ServiceAccountTokenProjection",
        "audience expirationSeconds path",
    ),
    ("core.v1.SleepAction", "seconds"),
    ("core.v1.Sysctl", "name value"),
    ("core.v1.TCPSocketAction", "host port"),
    (
        "core.v1.Toleration",
        "effect key operator tolerationSeconds value",
    ),
    (
        "core.v1.TopologySpreadConstraint",
        "labelSelector matchLabelKeys maxSkew minDomains nodeAffinityPolicy nodeTaintsPolicy \
         topologyKey whenUnsatisfiable",
    ),
    (
        "core.v1.Volume",
        "configMap downwardAPI emptyDir hostPath name projected secret",
    ),
    (
        "core.v1.VolumeMount",
        "mountPath mountPropagation name readOnly subPath subPathExpr",
    ),
    (
        "core.v1.VolumeProjection",
        "configMap downwardAPI secret serviceAccountToken",
    ),
    ("core.v1.WeightedPodAffinityTerm", "podAffinityTerm weight"),
];

/// The object type that a field leads to, through lists.
fn below(kind: &Kind) -> Option<&'static Type> {
    match kind {
        Kind::List(item) => below(item),
        other => match resolve(other) {
            Resolved::Object(object) => Some(object),
            Resolved::Plain(_) => None,
        },
    }
}

fn pod_spec() -> &'static Type {
    named("core.v1.PodSpec").unwrap()
}

/// Type and field that every row of the table ends at. Keys of maps are no fields: the map is
/// honoured but for them.
fn refused() -> BTreeSet<(&'static str, &'static str)> {
    let mut found = BTreeSet::new();
    for row in TABLE {
        let steps: Vec<&str> = row.path.split('.').skip(1).collect();
        let mut at = pod_spec();
        for (i, step) in steps.iter().enumerate() {
            let field: &Field = at.field(step.trim_end_matches("[]")).unwrap();
            if i + 1 == steps.len() {
                found.insert((at.name, field.name));
            }
            let Some(next) = below(&field.kind) else {
                break;
            };
            at = next;
        }
    }
    found
}

#[test]
fn every_field_of_a_pod_is_honoured_or_refused() {
    let refused = refused();
    let honoured: BTreeMap<&str, Vec<&str>> = HONOURED
        .iter()
        .map(|(name, fields)| (*name, fields.split_whitespace().collect()))
        .collect();
    let mut open = vec![pod_spec()];
    let mut seen = BTreeSet::new();
    while let Some(one) = open.pop() {
        if !seen.insert(one.name) {
            continue;
        }
        let known = honoured.get(one.name).cloned().unwrap_or_default();
        for field in &one.fields {
            let (here, there) = (
                known.contains(&field.name),
                refused.contains(&(one.name, field.name)),
            );
            assert!(here || there, "{}.{} is ignored", one.name, field.name);
            assert!(
                !(here && there),
                "{}.{} is in both lists",
                one.name,
                field.name
            );
            open.extend(
                below(&field.kind)
                    .filter(|_| here)
                    .filter(|t| !seen.contains(t.name)),
            );
        }
        for name in known {
            assert!(one.field(name).is_some(), "{}.{name} is no field", one.name);
        }
    }
    let stale: Vec<_> = honoured
        .keys()
        .filter(|name| !seen.contains(*name))
        .collect();
    assert!(stale.is_empty(), "no field leads to {stale:?}");
}

/// A value of every field of a type.
fn sample(one: &Type) -> Value {
    let fields = one
        .fields
        .iter()
        .map(|f| (f.name.to_owned(), value(&f.kind)));
    Value::Object(fields.collect())
}

fn value(kind: &Kind) -> Value {
    match resolve(kind) {
        Resolved::Object(object) => sample(object),
        Resolved::Plain(plain) => match plain {
            Kind::Bool => json!(true),
            Kind::I32 | Kind::I64 | Kind::IntOrString => json!(1),
            Kind::F64 => json!(0.5),
            Kind::Time => json!("2026-01-01T00:00:00Z"),
            Kind::List(item) => json!([value(item)]),
            Kind::Map(item) => json!({"key": value(item)}),
            Kind::String | Kind::Quantity => json!("1"),
            Kind::Bytes | Kind::Any | Kind::Ref(_) => json!(""),
        },
    }
}

/// The table looks at the typed form: what that lacks would be ignored unseen.
#[test]
fn the_typed_form_has_every_field() {
    let spec = sample(pod_spec());
    let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
    let back = serde_json::to_value(pod).unwrap();
    assert_eq!(back["spec"], spec);
}
