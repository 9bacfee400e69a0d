//! Findings: what is wrong with an object, or not as it was asked for.

use std::fmt;
use std::sync::Arc;

/// The kinds that planning knows: those that users write for Weir, and those of Kubernetes that these refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// DirectorGroup, of the whole cluster.
    DirectorGroup,
    /// RealServer, of a namespace.
    RealServer,
    /// VirtualService, of a namespace.
    VirtualService,
    /// Service of Kubernetes, of a namespace.
    Service,
    /// EndpointSlice of Kubernetes, of a namespace.
    EndpointSlice,
    /// ReferenceGrant of the Gateway API, of a namespace.
    ReferenceGrant,
}

impl Kind {
    /// The kinds that users write for Weir.
    pub const OWN: [Self; 3] = [Self::DirectorGroup, Self::RealServer, Self::VirtualService];

    /// The name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::DirectorGroup => "DirectorGroup",
            Self::RealServer => "RealServer",
            Self::VirtualService => "VirtualService",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ReferenceGrant => "ReferenceGrant",
        }
    }

    /// Whether objects of this kind live in namespaces.
    pub fn is_namespaced(self) -> bool {
        self != Self::DirectorGroup
    }
}

/// Names an object of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// `namespace/name`.
impl fmt::Display for NamespacedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, where its kind has them.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// Names a VirtualService.
    pub fn virtual_service(name: &NamespacedName) -> Self {
        Self::namespaced(Kind::VirtualService, name)
    }

    /// Names a RealServer.
    pub fn real_server(name: &NamespacedName) -> Self {
        Self::namespaced(Kind::RealServer, name)
    }

    /// Names a DirectorGroup.
    pub fn director_group(name: Arc<str>) -> Self {
        Self {
            kind: Kind::DirectorGroup,
            namespace: None,
            name,
        }
    }

    /// Its name in its namespace, where its kind has them.
    pub fn namespaced_name(&self) -> Option<NamespacedName> {
        Some(NamespacedName {
            namespace: self.namespace.clone()?,
            name: self.name.clone(),
        })
    }

    /// Names an object of a kind that lives in namespaces.
    pub fn namespaced(kind: Kind, name: &NamespacedName) -> Self {
        Self {
            kind,
            namespace: Some(name.namespace.clone()),
            name: name.name.clone(),
        }
    }
}

/// `VirtualService shop/web`, `DirectorGroup edge`.
impl fmt::Display for ObjectRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.name())?;
        match &self.namespace {
            Some(namespace) => write!(formatter, " {namespace}/{}", self.name),
            None => write!(formatter, " {}", self.name),
        }
    }
}

/// Why there is a finding, in one word; a closed list, so that programs can tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The object breaks the schema or a rule; its last good form stays in force.
    Invalid,
    /// A field asks for what this version of Weir does not do yet.
    NotSupported,
    /// Another object has what this one claims.
    Conflict,
    /// The object names one that does not exist.
    NotFound,
    /// A selection holds nothing.
    Empty,
    /// The object may not name the one it names.
    NotPermitted,
    /// Values of two objects do not fit together.
    Mismatch,
    /// All is as asked for, but has an effect that may surprise.
    Notice,
}

impl Reason {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::NotSupported => "NotSupported",
            Self::Conflict => "Conflict",
            Self::NotFound => "NotFound",
            Self::Empty => "Empty",
            Self::NotPermitted => "NotPermitted",
            Self::Mismatch => "Mismatch",
            Self::Notice => "Notice",
        }
    }
}

/// What is wrong with an object, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object.
    pub object: ObjectRef,
    /// The field, as a path from the object's root: `spec.listeners[0].port`. Empty for the object as a whole.
    pub field: Box<str>,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in one sentence, and the next step.
    pub message: Box<str>,
}

impl Finding {
    /// A finding on a field.
    pub fn new(object: ObjectRef, field: &str, reason: Reason, message: impl Into<Box<str>>) -> Self {
        Self {
            object,
            field: field.into(),
            reason,
            message: message.into(),
        }
    }
}

/// `VirtualService shop/web: spec.listeners[0].port: …`.
impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.message)
    }
}
