//! The environment of a container: services, envFrom, env with references and expansion.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret, Service,
};

use super::expand::expand_with;
use super::field::{Surroundings, field_value, resource_value};
use super::{container as find_container, is_static, namespace};
use crate::objects::{ObjectError, Objects};

/// The objects that a container's environment refers to, read beforehand.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// ConfigMaps by name; `None` for one that does not exist.
    pub config_maps: HashMap<String, Option<ConfigMap>>,
    /// Secrets by name; `None` for one that does not exist.
    pub secrets: HashMap<String, Option<Secret>>,
    /// Every Service of the cluster.
    pub services: std::sync::Arc<Vec<Service>>,
}

/// Why an environment cannot be made; the container waits with
/// `CreateContainerConfigError` and this text.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// A reference to an object that does not exist.
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    /// A reference to a key that the object does not have.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        key: String,
        kind: &'static str,
        namespace: String,
        name: String,
    },
    /// A `fieldRef` or `resourceFieldRef` that names no such field.
    #[error("env `{env}`: unsupported field `{path}`")]
    Field { env: String, path: String },
    /// A value that is not text.
    #[error("env `{env}`: the value of key {key} is not UTF-8")]
    NotText { env: String, key: String },
    /// The object could not be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Reads what the environment of `container` refers to.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn fetch(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
) -> Result<Sources, EnvError> {
    let ns = namespace(pod);
    let services = match objects.services().await {
        // A static pod is there to run when nothing else does, the API server included.
        Err(_) if is_static(pod) => std::sync::Arc::default(),
        services => services?,
    };
    let mut sources = Sources {
        services,
        ..Sources::default()
    };
    let (config_maps, secrets) = referenced(container);
    for name in config_maps {
        let found = objects.config_map(ns, &name).await?;
        sources.config_maps.insert(name, found);
    }
    for name in secrets {
        let found = objects.secret(ns, &name).await?;
        sources.secrets.insert(name, found);
    }
    Ok(sources)
}

fn referenced(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|e| e.value_from.as_ref())
    {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment, in order, each name once. Pure.
///
/// # Errors
/// A reference that cannot be honoured and is not optional.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut envs = Vec::new();
    for from in container.env_from.iter().flatten() {
        for (name, value) in from_object(pod, from, sources)? {
            set(&mut envs, name, value);
        }
    }
    let services = service_envs(pod, &sources.services);
    for env in container.env.iter().flatten() {
        let value = match (&env.value, &env.value_from) {
            (_, Some(source)) => {
                let context = Context {
                    pod,
                    container,
                    sources,
                    around,
                };
                match context.referenced(&env.name, source)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            (value, None) => {
                let known: Vec<_> = services.iter().chain(&envs).cloned().collect();
                expand_with(value.as_deref().unwrap_or_default(), &known)
            }
        };
        set(&mut envs, env.name.clone(), value);
    }
    for (name, value) in services {
        if !envs.iter().any(|(n, _)| *n == name) {
            envs.push((name, value));
        }
    }
    Ok(envs)
}

fn set(envs: &mut Vec<(String, String)>, name: String, value: String) {
    match envs.iter_mut().find(|(n, _)| *n == name) {
        Some(entry) => entry.1 = value,
        None => envs.push((name, value)),
    }
}

fn from_object(
    pod: &Pod,
    from: &EnvFromSource,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let _ = pod;
    let mut found = Vec::new();
    if let Some(reference) = &from.config_map_ref {
        match sources
            .config_maps
            .get(&reference.name)
            .and_then(Option::as_ref)
        {
            Some(map) => {
                let data = map.data.iter().flatten();
                found.extend(data.map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
            }
            None if reference.optional == Some(true) => {}
            None => return Err(missing("configmap", &reference.name)),
        }
    }
    if let Some(reference) = &from.secret_ref {
        match sources
            .secrets
            .get(&reference.name)
            .and_then(Option::as_ref)
        {
            Some(secret) => {
                for (key, value) in secret.data.iter().flatten() {
                    let name = format!("{prefix}{key}");
                    let value = text(&name, key, &value.0)?;
                    found.push((name, value));
                }
            }
            None if reference.optional == Some(true) => {}
            None => return Err(missing("secret", &reference.name)),
        }
    }
    Ok(found)
}

struct Context<'a> {
    pod: &'a Pod,
    container: &'a Container,
    sources: &'a Sources,
    around: &'a Surroundings,
}

impl Context<'_> {
    /// The value a `valueFrom` stands for; `None` when it is optional and absent.
    fn referenced(&self, env: &str, source: &EnvVarSource) -> Result<Option<String>, EnvError> {
        if let Some(field) = &source.field_ref {
            return field_value(self.pod, &field.field_path, self.around)
                .map(Some)
                .ok_or_else(|| EnvError::Field {
                    env: env.to_owned(),
                    path: field.field_path.clone(),
                });
        }
        if let Some(selector) = &source.resource_field_ref {
            let container = match selector.container_name.as_deref() {
                None | Some("") => Some(self.container),
                Some(name) => find_container(self.pod, name),
            };
            return container
                .and_then(|c| resource_value(c, selector, self.around))
                .map(Some)
                .ok_or_else(|| EnvError::Field {
                    env: env.to_owned(),
                    path: selector.resource.clone(),
                });
        }
        if let Some(reference) = &source.config_map_key_ref {
            let map = self.sources.config_maps.get(&reference.name);
            let object = map.and_then(Option::as_ref);
            let value = object
                .and_then(|m| m.data.as_ref())
                .and_then(|d| d.get(&reference.key));
            return match value {
                Some(value) => Ok(Some(value.clone())),
                None if reference.optional == Some(true) => Ok(None),
                None if object.is_none() => Err(missing("configmap", &reference.name)),
                None => Err(self.no_key("ConfigMap", &reference.name, &reference.key)),
            };
        }
        let Some(reference) = &source.secret_key_ref else {
            return Ok(None);
        };
        let secret = self.sources.secrets.get(&reference.name);
        let object = secret.and_then(Option::as_ref);
        let value = object
            .and_then(|s| s.data.as_ref())
            .and_then(|d| d.get(&reference.key));
        match value {
            Some(value) => text(env, &reference.key, &value.0).map(Some),
            None if reference.optional == Some(true) => Ok(None),
            None if object.is_none() => Err(missing("secret", &reference.name)),
            None => Err(self.no_key("Secret", &reference.name, &reference.key)),
        }
    }

    fn no_key(&self, kind: &'static str, name: &str, key: &str) -> EnvError {
        EnvError::NoKey {
            key: key.to_owned(),
            kind,
            namespace: namespace(self.pod).to_owned(),
            name: name.to_owned(),
        }
    }
}

fn missing(kind: &'static str, name: &str) -> EnvError {
    EnvError::NoObject {
        kind,
        name: name.to_owned(),
    }
}

fn text(env: &str, key: &str, bytes: &[u8]) -> Result<String, EnvError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| EnvError::NotText {
        env: env.to_owned(),
        key: key.to_owned(),
    })
}

/// Variables of the Services a pod sees: those of its namespace (unless service links are
/// off) and always the API server's own.
fn service_envs(pod: &Pod, services: &[Service]) -> Vec<(String, String)> {
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
    let ns = namespace(pod);
    let mut envs = Vec::new();
    for service in services {
        let service_ns = service.metadata.namespace.as_deref().unwrap_or("default");
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let master = service_ns == "default" && name == "kubernetes";
        if master || (links && service_ns == ns) {
            one_service(service, name, &mut envs);
        }
    }
    envs
}

fn one_service(service: &Service, name: &str, envs: &mut Vec<(String, String)>) {
    let Some(spec) = &service.spec else { return };
    let address = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(ip) => ip,
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let name = upper(name);
    let mut push = |key: String, value: String| envs.push((key, value));
    push(format!("{name}_SERVICE_HOST"), address.to_owned());
    push(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports.iter().filter(|p| p.name.is_some()) {
        let port_name = upper(port.name.as_deref().unwrap_or_default());
        push(
            format!("{name}_SERVICE_PORT_{port_name}"),
            port.port.to_string(),
        );
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let scheme = protocol.to_lowercase();
        let url = format!("{scheme}://{address}:{}", port.port);
        if i == 0 {
            push(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        push(prefix.clone(), url);
        push(format!("{prefix}_PROTO"), scheme);
        push(format!("{prefix}_PORT"), port.port.to_string());
        push(format!("{prefix}_ADDR"), address.to_owned());
    }
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::json;

    fn sources() -> Sources {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v", "l": "w"}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"data": {"s": "c2VjcmV0"}})).unwrap();
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"},
             "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
            {"metadata": {"name": "db-main", "namespace": "default"},
             "spec": {"clusterIP": "10.96.0.5", "ports": [{"port": 5432}]}},
            {"metadata": {"name": "away", "namespace": "other"},
             "spec": {"clusterIP": "10.96.0.6", "ports": [{"port": 1}]}},
            {"metadata": {"name": "headless", "namespace": "default"},
             "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}]))
        .unwrap();
        Sources {
            config_maps: [("m".to_owned(), Some(map)), ("none".into(), None)].into(),
            secrets: [("s".to_owned(), Some(secret)), ("none".into(), None)].into(),
            services: std::sync::Arc::new(services),
        }
    }

    fn envs(container: &str) -> Result<HashMap<String, String>, String> {
        let pod = pod(&format!("{{containers: [{container}]}}"));
        let container = &crate::pod::containers(&pod)[0];
        resolve(&pod, container, &sources(), &Surroundings::default())
            .map(|all| all.into_iter().collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn references_prefixes_and_expansion() {
        let got = envs(
            "{name: a, envFrom: [{prefix: P_, configMapRef: {name: m}}, {secretRef: {name: s}}],
              env: [{name: X, value: '$(P_k)-$(s)-$(KUBERNETES_SERVICE_HOST)'},
                    {name: Y, valueFrom: {configMapKeyRef: {name: m, key: l}}},
                    {name: Z, valueFrom: {fieldRef: {fieldPath: metadata.name}}},
                    {name: P_l, value: over},
                    {name: O, valueFrom: {configMapKeyRef: {name: none, key: l, optional: true}}}]}",
        )
        .unwrap();
        assert_eq!(got["X"], "v-secret-10.96.0.1");
        assert_eq!((got["Y"].as_str(), got["Z"].as_str()), ("w", "web"));
        assert_eq!(got["P_l"], "over");
        assert!(!got.contains_key("O"));
    }

    #[test]
    fn services_give_their_variables() {
        let got = envs("{name: a}").unwrap();
        assert_eq!(got["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(got["DB_MAIN_SERVICE_HOST"], "10.96.0.5");
        assert_eq!(got["DB_MAIN_PORT_5432_TCP"], "tcp://10.96.0.5:5432");
        assert!(
            !got.keys()
                .any(|k| k.starts_with("AWAY") || k.starts_with("HEADLESS"))
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (container, text) in [
            (
                "{name: a, envFrom: [{configMapRef: {name: none}}]}",
                "configmap \"none\" not found",
            ),
            (
                "{name: a, env: [{name: X, valueFrom: {secretKeyRef: {name: none, key: k}}}]}",
                "secret \"none\" not found",
            ),
            (
                "{name: a, env: [{name: X, valueFrom: {configMapKeyRef: {name: m, key: q}}}]}",
                "couldn't find key q in ConfigMap default/m",
            ),
            (
                "{name: a, env: [{name: X, valueFrom: {fieldRef: {fieldPath: spec.x}}}]}",
                "env `X`: unsupported field `spec.x`",
            ),
        ] {
            assert_eq!(envs(container).unwrap_err(), text);
        }
    }
}
