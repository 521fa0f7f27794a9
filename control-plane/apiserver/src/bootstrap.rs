//! The objects that every cluster has from the start.

use berth_api::{
    meta,
    status::{self, Status},
};
use berth_store::{Compare, Txn, TxnError};
use chrono::Utc;
use serde_json::{Value, json};

use crate::{
    registry::{self, Next, ObjectRef, core, resource},
    server::Api,
    service_ip,
};

/// The namespaces of a new cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing; brings the endpoint of the `kubernetes` Service up to date.
pub async fn ensure(api: &Api) -> Result<(), Status> {
    for name in NAMESPACES {
        let target = ObjectRef {
            resource: core("namespaces"),
            namespace: "",
            name,
        };
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": { "kubernetes.io/metadata.name": name },
            },
            "spec": { "finalizers": ["kubernetes"] },
            "status": { "phase": "Active" },
        });
        create(api, &target, namespace, Txn::default()).await?;
    }
    ensure_service(api).await?;
    ensure_endpoint_slice(api).await
}

/// Creates an object unless it exists.
async fn create(
    api: &Api,
    target: &ObjectRef<'_>,
    mut object: Value,
    mut txn: Txn,
) -> Result<(), Status> {
    if api.registry.find(target).await?.is_some() {
        return Ok(());
    }
    meta::set(&mut object, "uid", uuid::Uuid::new_v4().to_string());
    meta::set(
        &mut object,
        "creationTimestamp",
        meta::timestamp(Utc::now()),
    );
    txn.compare.push(Compare {
        key: registry::key(target),
        modified: 0,
    });
    txn.ops.push(api.registry.put(target, &object));
    match api.registry.txn(txn).await {
        Ok(_) | Err(TxnError::Conflict { .. }) => Ok(()),
        Err(error) => Err(status::internal(error)),
    }
}

async fn ensure_service(api: &Api) -> Result<(), Status> {
    let ip = api.config.kubernetes_service_ip();
    let target = ObjectRef {
        resource: core("services"),
        namespace: "default",
        name: "kubernetes",
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "clusterIP": ip.to_string(), "clusterIPs": [ip.to_string()],
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{
                "name": "https", "port": 443, "protocol": "TCP",
                "targetPort": api.address.port(),
            }],
        },
        "status": { "loadBalancer": {} },
    });
    let mut txn = Txn::default();
    service_ip::reserve(ip, "default/kubernetes", &mut txn);
    create(api, &target, service, txn).await
}

/// The endpoint is this server's advertised address; it may change from start to start.
async fn ensure_endpoint_slice(api: &Api) -> Result<(), Status> {
    let target = ObjectRef {
        resource: resource("discovery.k8s.io", "endpointslices"),
        namespace: "default",
        name: "kubernetes",
    };
    let address = api.config.advertise_address;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "generation": 1,
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{
            "addresses": [address.to_string()],
            "conditions": { "ready": true },
        }],
        "ports": [{ "name": "https", "port": api.address.port(), "protocol": "TCP" }],
    });
    create(api, &target, slice.clone(), Txn::default()).await?;
    api.registry
        .update(&target, false, |old| {
            let mut new = old.clone();
            for field in ["addressType", "endpoints", "ports"] {
                new[field] = slice[field].clone();
            }
            Ok(Next::Put(new))
        })
        .await?;
    Ok(())
}
