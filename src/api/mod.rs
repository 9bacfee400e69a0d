//! The resources of group `weir.dev`, version `v1alpha1`: what a user writes and what Weir reports.
//!
//! | file | what |
//! | --- | --- |
//! | `virtual_service` | VirtualService: what clients connect to and which real servers answer |
//! | `real_server` | RealServer: a machine that answers |
//! | `director_group` | DirectorGroup: which nodes balance, and how they share the work |
//! | `node_state` | NodeState: what one node's agent has programmed |
//! | `forwarding`, `health_check`, `selector`, `duration` | parts that several resources have |
//! | `reference_grant` | ReferenceGrant of the Gateway API, which Weir only reads |
//! | `condition` | conditions and their reasons |
//! | `rules` | what the schema cannot say: each rule as CEL with its message |
//! | `crds` | the CustomResourceDefinitions |
//!
//! The types are as lenient as JSON: an address is a string here and numbers are not yet in range. The API server
//! checks an object by schema and CEL; [`plan`](crate::plan) checks the same in Rust, for objects that no API
//! server has seen.

mod condition;
mod crds;
mod director_group;
mod duration;
mod forwarding;
mod health_check;
mod node_state;
mod real_server;
mod reference_grant;
pub mod rules;
mod selector;
mod virtual_service;

pub use condition::{Condition, ConditionStatus};
pub use crds::{crd_yaml, crds};
pub use director_group::{
    ConnectionSync, DirectorGroup, DirectorGroupSpec, DirectorGroupStatus, Failover, FailoverType,
    IpvsTimeouts, LeaseFailover, RoutedFailover, StaticFailover, VrrpFailover,
};
pub use duration::{Duration, DurationError};
pub use forwarding::{
    ArpSuppression, Forwarding, ForwardingMethod, RealServerBinding, Snat, Tunnel, TunnelChecksum, TunnelType,
};
pub use health_check::{HealthCheck, HealthCheckType, HttpCheck, TcpCheck};
pub use node_state::{
    ArpSuppressionMethod, DirectorRole, FailureReport, FindingReport, LeavingRealServer, NodeState,
    NodeStateSpec, NodeStateStatus, PreflightReport, Programmed, RoleReport,
};
pub use real_server::{AdminState, RealServer, RealServerSpec, RealServerState, RealServerStatus};
pub use reference_grant::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo};
pub use selector::{LabelSelector, LabelSelectorRequirement, SelectorOperator};
pub use virtual_service::{
    AddressPoolRef, Backend, DirectorGroupRef, Draining, Fallback, FirewallMark, IpFamily, Listener,
    OnDrainTimeout, Persistence, PersistenceEngine, Protocol, RealServerSelection, Scheduler,
    SchedulerAlgorithm, SchedulerFlag, ServiceRef, VirtualService, VirtualServiceSpec, VirtualServiceStatus,
    WhenUnhealthy,
};

/// The API group.
pub const GROUP: &str = "weir.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// Group and version as manifests say them.
pub const API_VERSION: &str = "weir.dev/v1alpha1";
/// What holds a RealServer that is deleted, until its connections have ended.
pub const DRAIN_FINALIZER: &str = "weir.dev/drain";
/// The DirectorGroup that is meant where none is named.
pub const DEFAULT_DIRECTOR_GROUP: &str = "default";
