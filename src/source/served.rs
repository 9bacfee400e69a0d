//! An object of one of Weir's kinds as the API server has it, of whatever version its definition is. Pure.
//!
//! While a cluster is upgraded, and after a version was taken back, definitions are newer than programs. One object that
//! asks for what a program does not know must keep it from reading neither the others of its kind nor the rest of the object.

use std::borrow::Cow;

use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

use crate::catalog::Reason;
use crate::catalog::validate::{Remark, Validation};

use super::decode::{Decoded, Fault, FaultKind, Shape};

/// This program's version, for messages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An object as it is served.
#[derive(Debug, Clone)]
pub struct Served<K> {
    metadata: ObjectMeta,
    /// Without its status.
    object: Decoded<K>,
    /// Fields of its spec that this version does not know.
    unknown: Vec<Remark>,
    status: Option<Value>,
}

impl<K> Served<K> {
    /// Validates what it asks for.
    pub fn validate<T>(&self, validate: impl FnOnce(&K) -> Validation<T>) -> Validation<T> {
        let mut validation = self.object.validate(validate);
        let faults = self.object.faults.iter().map(newer_value);
        validation.remarks.splice(0..0, faults);
        validation.remarks.extend_from_slice(&self.unknown);
        validation
    }

    /// Its metadata alone.
    pub fn into_metadata(self) -> ObjectMeta {
        self.metadata
    }
}

impl<K: Resource<DynamicType = ()>> Served<K> {
    /// Its status, which another version may have written.
    ///
    /// # Errors
    ///
    /// It does not fit this version's type.
    pub fn status<S: DeserializeOwned + Default>(&self) -> Result<S, Remark> {
        let Some(status) = &self.status else {
            return Ok(S::default());
        };
        let shape = Shape::of_kind(&K::kind(&())).member("status");
        let mut decoded = Decoded::new(shape, status.clone(), |_| None);
        decoded
            .faults
            .retain(|fault| fault.kind != FaultKind::UnknownField);
        decoded.into_resource().map_err(|fault| {
            let remark = newer_value(&fault);
            let separator = if remark.field.is_empty() { "" } else { "." };
            Remark {
                field: format!("status{separator}{}", remark.field),
                ..remark
            }
        })
    }
}

/// Says of a field that only a newer version can have meant something by it.
fn newer_field(fault: Fault) -> Remark {
    let message = "does not know this field, and it has no effect: written for another version? Then upgrade";
    Remark {
        field: fault.field,
        reason: Reason::NotSupported,
        message: format!("Weir {VERSION} {message}"),
    }
}

/// Says of what the API server has accepted and this version does not understand where it may come from.
fn newer_value(fault: &Fault) -> Remark {
    let remark = fault.to_remark();
    Remark {
        message: format!(
            "{}: written for another version of Weir than {VERSION}? Then upgrade",
            remark.message
        ),
        ..remark
    }
}

impl<'de, K: DeserializeOwned + Resource<DynamicType = ()>> Deserialize<'de> for Served<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::deserialize(deserializer)?;
        let status = members.remove("status");
        let metadata = members.get("metadata").unwrap_or(&Value::Null);
        let metadata = ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?;
        let shape = Shape::of_kind(&K::kind(&()));
        let mut object = Decoded::new(shape, Value::Object(members), |_| None);
        let unknown = object
            .faults
            .extract_if(.., |fault| fault.kind == FaultKind::UnknownField);
        let unknown = unknown
            .filter(|fault| fault.field.starts_with("spec."))
            .map(newer_field);
        Ok(Self {
            metadata,
            unknown: unknown.collect(),
            object,
            status,
        })
    }
}

impl<K: Resource> Resource for Served<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{NodeStateStatus, VirtualService};
    use crate::catalog::validate;

    fn served(change: impl FnOnce(&mut Value)) -> Served<VirtualService> {
        let mut object = json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "VirtualService",
            "metadata": { "name": "web", "namespace": "shop", "resourceVersion": "7", "futureField": {} },
            "spec": {
                "addresses": ["10.0.0.200"],
                "listeners": [{ "name": "http", "protocol": "TCP", "port": 80 }],
                "backends": [{ "name": "web", "realServers": { "selector": { "matchLabels": { "app": "web" } } } }],
            },
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    /// Whether there is a form, and what is said about which field.
    fn read(served: &Served<VirtualService>) -> (bool, Vec<(String, String)>) {
        let validation = served.validate(validate::virtual_service);
        let remarks = validation.remarks.into_iter();
        let remarks = remarks.map(|remark| (remark.field, remark.message));
        (validation.value.is_some(), remarks.collect())
    }

    #[test]
    fn an_object_of_this_version_is_nothing_special() {
        assert_eq!(read(&served(|_| {})), (true, vec![]));
    }

    #[test]
    fn a_field_that_is_not_known_is_named_and_the_rest_is_used() {
        let newer = served(|object| {
            object["spec"]["listeners"][0]["rateLimit"] = json!(5);
            object["spec"]["quota"] = json!({ "connections": 5 });
            object["status"] = json!({ "mood": "fine" });
        });
        let (usable, remarks) = read(&newer);
        let fields: Vec<&str> = remarks.iter().map(|(field, _)| &**field).collect();
        assert_eq!(
            (usable, fields),
            (true, vec!["spec.listeners[0].rateLimit", "spec.quota"])
        );
        assert!(
            remarks[0]
                .1
                .starts_with(&format!("Weir {VERSION} does not know this field"))
        );
    }

    #[test]
    fn a_value_that_is_not_known_leaves_the_object_without_a_form_and_with_its_name() {
        let newer = served(|object| object["spec"]["listeners"][0]["protocol"] = json!("QUIC"));
        let (usable, remarks) = read(&newer);
        assert!(!usable);
        assert_eq!(remarks.len(), 1);
        let (field, message) = &remarks[0];
        assert_eq!(field, "spec.listeners[0].protocol");
        assert!(
            message.starts_with(
                "unsupported value \"QUIC\"; supported values: TCP, UDP, SCTP: written for another"
            ),
            "{message}"
        );
        assert_eq!(newer.meta().name.as_deref(), Some("web"));
        assert_eq!(newer.meta().resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn a_status_of_another_version_is_nothing_to_those_who_do_not_ask_for_it() {
        let newer = served(|object| object["status"] = json!({ "conditions": "all fine" }));
        assert_eq!(read(&newer), (true, vec![]));
        let status = json!({ "metadata": { "name": "d1" }, "spec": {}, "status": { "roles": [{ "directorGroup": "edge", "role": "Deputy" }] } });
        let state: Served<crate::api::NodeState> = serde_json::from_value(status).unwrap();
        let remark = state.status::<NodeStateStatus>().unwrap_err();
        assert_eq!(remark.field, "status.roles[0].role");
    }
}
