//! The CustomResourceDefinitions, as `weir crds` prints them and `crds/` holds them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::Value;

use super::{DirectorGroup, NodeState, RealServer, VirtualService};

/// The definitions of all kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        VirtualService::crd(),
        RealServer::crd(),
        DirectorGroup::crd(),
        NodeState::crd(),
    ];
    for crd in &mut crds {
        for version in &mut crd.spec.versions {
            let schema = version
                .schema
                .as_mut()
                .and_then(|schema| schema.open_api_v3_schema.as_mut());
            if let Some(schema) = schema {
                drop_null(schema);
                mend_status(schema);
            }
        }
    }
    crds
}

/// One definition as a YAML document.
///
/// # Errors
///
/// Serialisation failed; it has no reason to.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    // Through a JSON value: its maps are sorted, so that the text does not depend on declaration order.
    let mut value = serde_json::to_value(crd).map_err(|error| error.to_string())?;
    write_bounds_as_integers(&mut value);
    serde_saphyr::to_string(&value)
}

/// A bound of 65535.0 comes back from the API server as 65535; it is written so from the start, so that what is
/// applied and what is read back are the same text.
fn write_bounds_as_integers(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(write_bounds_as_integers),
        Value::Array(items) => items.iter_mut().for_each(write_bounds_as_integers),
        Value::Number(number) => {
            // The largest bound is that of a firewall mark, 2^32 - 1.
            let whole = number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
        }
        _ => {}
    }
}

/// A field that is not given is left out and never null: with null allowed, `has(self.field)` would be true for
/// something that is not there.
fn drop_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        drop_null(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        drop_null(items);
    }
}

/// What readers of status rely on: `observedGeneration` is -1 until somebody has looked at the object, and
/// conditions merge by their type.
fn mend_status(schema: &mut JSONSchemaProps) {
    let Some(status) = property(schema, "status") else {
        return;
    };
    if let Some(conditions) = property(status, "conditions") {
        conditions.x_kubernetes_list_type = Some("map".to_owned());
        conditions.x_kubernetes_list_map_keys = Some(vec!["type".to_owned()]);
    }
    if property(status, "observedGeneration").is_some() {
        status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
    }
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}
