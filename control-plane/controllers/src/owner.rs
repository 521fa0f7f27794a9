//! Owner references (`metav1.OwnerReference`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};

/// A reference that makes `owner` the controller of what carries it.
pub(crate) fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to the object's controller.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|r| r.controller == Some(true))
}

/// What an owner with a selector does about an object of its namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the owner's, and stays so.
    Keep,
    /// Nobody controls it and the selector matches: the owner takes it.
    Adopt,
    /// It is the owner's and the selector no longer matches: the owner lets it go.
    Release,
    /// Not the owner's business.
    Leave,
}

/// Decides about `object`: an owner or an object that is being deleted takes nothing and lets
/// nothing go (stock's `BaseControllerRefManager.ClaimObject`). Pure.
pub(crate) fn claim(owner: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    let uid = owner.uid.as_deref().unwrap_or_default();
    let settled = owner.deletion_timestamp.is_some() || object.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(held) if held.uid != uid => Claim::Leave,
        Some(_) if matches => Claim::Keep,
        Some(_) if settled => Claim::Leave,
        Some(_) => Claim::Release,
        None if matches && !settled => Claim::Adopt,
        None => Claim::Leave,
    }
}

/// The strategic merge patch that makes `owner` the controller of `object`. The UID in it has
/// the server refuse another object of the same name.
pub(crate) fn adoption<K: Resource<DynamicType = ()>>(owner: &K, object: &ObjectMeta) -> Value {
    json!({ "metadata": { "uid": object.uid, "ownerReferences": [controller_ref(owner)] } })
}

/// The strategic merge patch that takes `owner` out of the owners of `object`.
pub(crate) fn release(owner: &ObjectMeta, object: &ObjectMeta) -> Value {
    let gone = json!({ "$patch": "delete", "uid": owner.uid });
    json!({ "metadata": { "uid": object.uid, "ownerReferences": [gone] } })
}

/// Whether the object's controller is the one with this UID.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|r| r.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn meta(uid: &str, controller: Option<&str>) -> ObjectMeta {
        let reference = |uid: &str| OwnerReference {
            uid: uid.into(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta {
            uid: Some(uid.into()),
            owner_references: controller.map(|uid| vec![reference(uid)]),
            ..ObjectMeta::default()
        }
    }

    fn deleted(meta: ObjectMeta) -> ObjectMeta {
        ObjectMeta {
            deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
            ..meta
        }
    }

    #[test]
    fn what_no_longer_matches_is_released_and_what_matches_adopted() {
        let owner = meta("o", None);
        let (own, orphan, foreign) = (meta("p", Some("o")), meta("p", None), meta("p", Some("x")));
        assert_eq!(claim(&owner, &own, true), Claim::Keep);
        assert_eq!(claim(&owner, &own, false), Claim::Release);
        assert_eq!(claim(&owner, &orphan, true), Claim::Adopt);
        assert_eq!(claim(&owner, &orphan, false), Claim::Leave);
        assert_eq!(claim(&owner, &foreign, true), Claim::Leave);
        assert_eq!(claim(&owner, &foreign, false), Claim::Leave);
    }

    #[test]
    fn what_is_being_deleted_changes_no_owner() {
        let owner = deleted(meta("o", None));
        assert_eq!(claim(&owner, &meta("p", Some("o")), false), Claim::Leave);
        assert_eq!(claim(&owner, &meta("p", None), true), Claim::Leave);
        let owner = meta("o", None);
        let going = |controller| deleted(meta("p", controller));
        assert_eq!(claim(&owner, &going(Some("o")), true), Claim::Keep);
        assert_eq!(claim(&owner, &going(Some("o")), false), Claim::Leave);
        assert_eq!(claim(&owner, &going(None), true), Claim::Leave);
    }

    #[test]
    fn a_release_names_both_uids() {
        assert_eq!(
            release(&meta("o", None), &meta("p", Some("o"))),
            json!({"metadata": {"uid": "p", "ownerReferences": [{"$patch": "delete", "uid": "o"}]}})
        );
    }
}
