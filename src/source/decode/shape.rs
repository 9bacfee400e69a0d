//! What values a kind may have, made from its CustomResourceDefinition: what the API server checks by its schema, as far
//! as a type of Rust needs it. Lengths, patterns and rules are [`catalog::validate`](crate::catalog::validate)'s.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use schemars::generate::SchemaSettings;

use crate::api::{DirectorGroup, NodeState, RealServer, VERSION, VirtualService};

// Each is made when the first object of its kind is there: that takes a few milliseconds.
static VIRTUAL_SERVICE: LazyLock<Shape> = LazyLock::new(|| of_kind(VirtualService::crd()));
static REAL_SERVER: LazyLock<Shape> = LazyLock::new(|| of_kind(RealServer::crd()));
static DIRECTOR_GROUP: LazyLock<Shape> = LazyLock::new(|| of_kind(DirectorGroup::crd()));
static NODE_STATE: LazyLock<Shape> = LazyLock::new(|| of_kind(NodeState::crd()));
/// The metadata that every object has.
static METADATA: LazyLock<Shape> = LazyLock::new(metadata);

/// What values may be in a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Any.
    Any,
    /// True or false.
    Bool,
    /// An integer within these bounds.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// Any number.
    Number,
    /// A string.
    String,
    /// A point in time, as a string.
    Time,
    /// One of these strings.
    Choice(Vec<String>),
    /// A list of such values.
    List(Box<Shape>),
    /// A map from any key to such values.
    Map(Box<Shape>),
    /// A map with these keys, in their order.
    Object(Vec<Field>),
}

/// A key of a map, and its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The key.
    pub name: String,
    /// What values it may have.
    pub shape: Shape,
    /// Whether it has to be there.
    pub is_required: bool,
}

impl Shape {
    /// The shape of one of Weir's kinds.
    pub fn of_kind(kind: &str) -> &'static Self {
        match kind {
            "VirtualService" => &VIRTUAL_SERVICE,
            "RealServer" => &REAL_SERVER,
            "DirectorGroup" => &DIRECTOR_GROUP,
            "NodeState" => &NODE_STATE,
            _ => &Self::Any,
        }
    }

    /// The shape of a member of a map.
    pub fn member(&self, name: &str) -> &Self {
        match self {
            Self::Object(fields) => {
                let found = fields.iter().find(|field| field.name == name);
                found.map_or(&Self::Any, |field| &field.shape)
            }
            Self::Map(values) => values,
            _ => &Self::Any,
        }
    }

    fn new(schema: JSONSchemaProps) -> Self {
        match schema.type_.as_deref() {
            Some("boolean") => Self::Bool,
            Some("number") => Self::Number,
            Some("integer") => {
                let bits = match schema.format.as_deref() {
                    Some("int32") => (i32::MIN.into(), i32::MAX.into()),
                    _ => (i64::MIN, i64::MAX),
                };
                Self::Integer {
                    min: schema.minimum.map_or(bits.0, |minimum| minimum as i64),
                    max: schema.maximum.map_or(bits.1, |maximum| maximum as i64),
                }
            }
            Some("string") => match schema.enum_ {
                Some(choices) => {
                    let choices = choices
                        .into_iter()
                        .filter_map(|choice| Some(choice.0.as_str()?.to_owned()));
                    Self::Choice(choices.collect())
                }
                None if schema.format.as_deref() == Some("date-time") => Self::Time,
                None => Self::String,
            },
            Some("array") => Self::List(Box::new(match schema.items {
                Some(JSONSchemaPropsOrArray::Schema(items)) => Self::new(*items),
                _ => Self::Any,
            })),
            Some("object") => match (schema.properties, schema.additional_properties) {
                (Some(properties), _) => {
                    let required = schema.required.unwrap_or_default();
                    let fields = properties.into_iter().map(|(name, schema)| Field {
                        is_required: required.contains(&name),
                        shape: Self::new(schema),
                        name,
                    });
                    Self::Object(fields.collect())
                }
                (None, Some(JSONSchemaPropsOrBool::Schema(values))) => {
                    Self::Map(Box::new(Self::new(*values)))
                }
                _ => Self::Map(Box::new(Self::Any)),
            },
            _ => Self::Any,
        }
    }
}

fn of_kind(definition: CustomResourceDefinition) -> Shape {
    let version = definition
        .spec
        .versions
        .into_iter()
        .find(|version| version.name == VERSION);
    let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
    let mut shape = schema.map_or(Shape::Any, Shape::new);
    if let Shape::Object(fields) = &mut shape {
        // These the API server adds by itself.
        for (name, shape, is_required) in [
            ("apiVersion", Shape::String, false),
            ("kind", Shape::String, false),
            ("metadata", METADATA.clone(), true),
        ] {
            fields.retain(|field| field.name != name);
            fields.push(Field {
                name: name.to_owned(),
                shape,
                is_required,
            });
        }
    }
    shape
}

fn metadata() -> Shape {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<ObjectMeta>();
    let schema = serde_json::from_value(schema.to_value());
    schema.map_or(Shape::Any, Shape::new)
}
