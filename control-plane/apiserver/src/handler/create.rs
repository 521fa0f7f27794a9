//! `create`: a new object, with a name of its own or a generated one.

use berth_api::{
    meta, schema,
    status::{self, Status},
    strategy, validate,
};
use berth_store::{Compare, Op, Txn, TxnError};
use chrono::Utc;
use http::Response;
use rand::Rng;
use serde_json::Value;

use super::{Call, review};
use crate::{
    admission,
    registry::{self, ObjectRef, core, set_revision},
    response::Body,
    service_ip,
};

/// Names tried for one generateName (stock: 8).
const NAME_TRIES: usize = 8;
/// Tries when the namespace changed or a service address was taken between check and write.
const WRITE_TRIES: usize = 32;

/// Answers with the object as stored.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let (mut object, warnings) = schema::decode(
        call.resource,
        &call.body,
        call.content_type(),
        call.field_validation()?,
    )?;
    if !call.resource.is_stored() {
        return review::answer(call, object).await;
    }
    let dry_run = call.dry_run()?;
    place(call, &mut object)?;
    let created = create(call, object, dry_run).await?;
    call.respond(201, created, &warnings)
}

/// Fits the object's namespace and name to the path.
fn place(call: &Call, object: &mut Value) -> Result<(), Status> {
    let namespace = call.namespace();
    let given = meta::namespace(object);
    if call.resource.namespaced {
        if !given.is_empty() && given != namespace {
            return Err(status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::set(object, "namespace", namespace);
    } else {
        meta::unset(object, "namespace");
    }
    if !matches!(meta::resource_version(object), "" | "0") {
        return Err(status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    Ok(())
}

/// Admits, completes, validates and stores a new object.
pub async fn create(call: &Call, mut object: Value, dry_run: bool) -> Result<Value, Status> {
    let resource = call.resource;
    berth_api::defaults::apply(resource, &mut object);
    admission::mutate_create(call, &mut object).await?;
    strategy::prepare_create(resource, &mut object);
    meta::set(&mut object, "uid", uuid::Uuid::new_v4().to_string());
    meta::set(
        &mut object,
        "creationTimestamp",
        meta::timestamp(Utc::now()),
    );
    let base = meta::generate_name_base(&object).to_owned();
    let generated = meta::name(&object).is_empty() && !base.is_empty();
    for _ in 0..NAME_TRIES {
        if generated {
            meta::set(
                &mut object,
                "name",
                meta::generate_name(&base, rand::rng().random()),
            );
        }
        match store(call, object.clone(), dry_run).await {
            Err(error) if generated && error.reason == "AlreadyExists" => {}
            result => return result,
        }
    }
    Err(status::generate_name_conflict(
        resource,
        meta::name(&object),
    ))
}

fn check(call: &Call, object: &Value) -> Result<(), Status> {
    let errors = validate::create(call.resource, object);
    if errors.is_empty() {
        return Ok(());
    }
    Err(status::invalid(call.resource, meta::name(object), &errors))
}

async fn store(call: &Call, object: Value, dry_run: bool) -> Result<Value, Status> {
    let name = meta::name(&object).to_owned();
    let target = ObjectRef {
        resource: call.resource,
        namespace: call.namespace(),
        name: &name,
    };
    let key = registry::key(&target);
    for _ in 0..WRITE_TRIES {
        let mut object = object.clone();
        let mut txn = Txn::default();
        admit_namespace(call, &target, &mut txn).await?;
        service_ip::allocate(&call.api, &target, &mut object, &mut txn).await?;
        check(call, &object)?;
        txn.compare.push(Compare {
            key: key.clone(),
            modified: 0,
        });
        txn.ops.push(call.api.registry.put(&target, &object));
        if dry_run {
            if call.api.registry.find(&target).await?.is_some() {
                return Err(status::already_exists(call.resource, &name));
            }
            return Ok(object);
        }
        match call.api.registry.txn(txn).await {
            Ok(revision) => {
                set_revision(&mut object, revision);
                return Ok(object);
            }
            Err(TxnError::Conflict { key: taken, .. }) if taken == key => {
                return Err(status::already_exists(call.resource, &name));
            }
            Err(TxnError::Conflict { .. }) => {}
            Err(error) => return Err(status::internal(error)),
        }
    }
    Err(status::internal(
        "too many other writers while the object was created",
    ))
}

/// The namespace must exist and stay as it is until the object is written; new content in
/// a namespace that is being deleted is refused (admission NamespaceLifecycle).
async fn admit_namespace(call: &Call, target: &ObjectRef<'_>, txn: &mut Txn) -> Result<(), Status> {
    if !target.resource.namespaced {
        return Ok(());
    }
    let namespace = ObjectRef {
        resource: core("namespaces"),
        namespace: "",
        name: target.namespace,
    };
    let entry = call.api.registry.entry(&namespace).await?;
    let object = crate::object::of_entry(namespace.resource, &entry);
    let terminating = meta::is_deleting(&object) || object["status"]["phase"] == "Terminating";
    if terminating {
        let name = target.name;
        return Err(status::namespace_terminating(
            target.resource,
            name,
            namespace.name,
        ));
    }
    txn.compare.push(Compare {
        key: entry.key.to_string(),
        modified: entry.modified,
    });
    Ok(())
}

/// A write that only succeeds when the key is free.
pub fn put_new(key: String, op: Op, txn: &mut Txn) {
    txn.compare.push(Compare { key, modified: 0 });
    txn.ops.push(op);
}
