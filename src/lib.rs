//! Weir: a Kubernetes-native load balancer on the Linux kernel's own IPVS.
pub mod api;
pub mod ipvs;
pub mod netlink;
pub mod plan;
pub mod source;
