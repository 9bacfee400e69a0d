//! Weir: a Kubernetes-native load balancer on the Linux kernel's own IPVS.
pub mod agent;
pub mod api;
pub mod digest;
pub mod ipvs;
pub mod ledger;
pub mod netlink;
pub mod plan;
pub mod publish;
pub mod reconcile;
pub mod source;
pub mod status;
