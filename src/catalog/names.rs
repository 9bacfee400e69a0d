//! Kinds of objects, and their names.

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
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DirectorGroup,
        Self::RealServer,
        Self::VirtualService,
        Self::Service,
        Self::EndpointSlice,
        Self::ReferenceGrant,
    ];
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
