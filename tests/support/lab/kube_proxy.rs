//! kube-proxy on a node of the topology, whose API server is on the host ([`super::remote`]).

use std::path::PathBuf;

use serde_json::json;

use super::remote::{Boot, Program, Vm};

/// How to boot a VM that can run kube-proxy, given where its program is on the host.
pub fn boot(kube_proxy: PathBuf) -> Boot {
    Boot {
        files: vec![(kube_proxy, "/lab/kube-proxy".to_owned())],
        // It runs iptables and ipset.
        options: ["--base", "nodes", "--memory", "2048"]
            .map(str::to_owned)
            .to_vec(),
        ..Boot::default()
    }
}

/// How it is configured, beside what it must be told here.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// `mode`: ipvs, nftables, iptables.
    pub mode: &'a str,
    /// `ipvs.excludeCIDRs`.
    pub exclude_cidrs: &'a [&'a str],
    /// `ipvs.strictARP`.
    pub strict_arp: bool,
}

/// Starts it on a node that the API server has under the same name, with its address as `InternalIP`. The kubeconfig is
/// that of the user `system:kube-proxy`.
pub fn start<'vm>(vm: &'vm Vm, node: &str, kubeconfig: &str, settings: Settings<'_>) -> Program<'vm> {
    // ipset looks names of protocols up in it.
    vm.put("/etc/protocols", "tcp 6 TCP\nudp 17 UDP\nsctp 132 SCTP\n");
    let folder = format!("/run/kube-proxy-{node}");
    let kubeconfig_path = format!("{folder}/kubeconfig");
    vm.put(&kubeconfig_path, kubeconfig);
    let Settings {
        mode,
        exclude_cidrs,
        strict_arp,
    } = settings;
    let configuration = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": node,
        "clientConnection": { "kubeconfig": kubeconfig_path },
        "clusterCIDR": "10.244.0.0/16",
        "ipvs": { "scheduler": "rr", "excludeCIDRs": exclude_cidrs, "strictARP": strict_arp },
        // Those settings are the whole machine's, and a network namespace does not have them.
        "conntrack": { "maxPerCore": 0, "min": 0 },
    });
    let path = format!("{folder}/configuration");
    vm.put(&path, &configuration.to_string());
    vm.start(Some(node), &["kube-proxy", "--config", &path])
}
