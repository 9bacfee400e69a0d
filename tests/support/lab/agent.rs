//! An agent on a node of the topology, whose API server is on the host ([`super::remote`]).

use super::remote::{Program, Vm};

/// Shorter than in service, so that tests see audits.
const AUDIT: &str = "3s";

/// Starts one under the node's name, with the two capabilities that an agent's pod has.
pub fn start<'vm>(vm: &'vm Vm, node: &str, kubeconfig: &str) -> Program<'vm> {
    let path = format!("/run/{node}.kubeconfig");
    vm.put(&path, kubeconfig);
    let line = format!(
        "export KUBECONFIG={path} WEIR_NODE_NAME={node}; exec setpriv --no-new-privs \
         --bounding-set=-all,+net_admin,+net_raw --inh-caps=-all \
         weir agent --state-dir /run/weir-{node} --audit-interval {AUDIT}"
    );
    vm.start(Some(node), &["sh", "-c", &line])
}
