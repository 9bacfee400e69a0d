//! A user with the two capabilities of `deploy/systemd/weir-agent.service` can do all that root does.

use std::fs;
use std::os::unix::fs::chown;

use crate::lab::netns::Netns;
use crate::lab::traces;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const UNIT: &str = include_str!("../../deploy/systemd/weir-agent.service");
/// The user `nobody`.
const USER: u32 = 65534;

/// A director by masquerading and by direct routing, and a real server of another: what there is to be set on a host.
const MANIFEST: &str = "
apiVersion: weir.dev/v1alpha1
kind: DirectorGroup
metadata: {name: here}
spec:
  nodeSelector: {matchLabels: {weir.dev/role: director}}
  interface: front
  failover: {type: Static, static: {activeNode: host}}
  timeouts: {tcp: 600s}
---
apiVersion: weir.dev/v1alpha1
kind: DirectorGroup
metadata: {name: elsewhere}
spec:
  nodeSelector: {matchLabels: {weir.dev/role: elsewhere}}
  failover: {type: Static, static: {activeNode: other}}
---
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: api, namespace: shop}
spec:
  addresses: [10.0.0.201]
  listeners: [{name: http, protocol: TCP, port: 80, endPort: 89}]
  forwarding: {method: Masquerade, snat: Always}
  directorGroupRef: {name: here}
  backends: [{name: all, realServers: {selector: {matchLabels: {app: api}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  addresses: [10.0.0.200]
  listeners: [{name: http, protocol: TCP, port: 80}]
  forwarding: {method: DirectRoute}
  directorGroupRef: {name: elsewhere}
  backends: [{name: all, realServers: {selector: {matchLabels: {app: web}}}}]
---
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: api-1, namespace: shop, labels: {app: api}}
spec: {address: 10.0.0.11}
---
apiVersion: weir.dev/v1alpha1
kind: RealServer
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {address: 10.0.0.1, port: 80}
";

/// A host as the agent finds it.
fn host(name: &str) -> Netns {
    let netns = Netns::new(name);
    netns.sh("ip link set lo up; ip link add front type dummy; ip address add 10.0.0.1/24 dev front; ip link set front up");
    netns
}

/// Everything that Weir sets on a host. Without links' own addresses, which are made up.
fn everything(netns: &Netns) -> String {
    netns.sh(
        "ipvsadm -Sn; ipvsadm -Ln --timeout; ip -4 address show; nft list ruleset; \
         grep -rHs . /proc/sys/net/ipv4/vs /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward",
    )
}

/// The unit's capabilities, as setpriv takes them.
fn capabilities() -> String {
    let ambient = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("AmbientCapabilities="));
    let names = ambient.unwrap().split(' ');
    let names: Vec<_> = names
        .map(|name| name.replace("CAP_", "+").to_lowercase())
        .collect();
    format!("-all,{}", names.join(","))
}

#[test]
#[ignore = "needs the lab VM: make test-kernel"]
fn the_services_user_sets_what_root_sets() {
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(USER), Some(USER)).unwrap();
    let manifest = folder.path().join("host.yaml");
    fs::write(&manifest, MANIFEST).unwrap();
    let apply = |state: &str| {
        format!(
            "{WEIR} apply -f {} --node-name host --node-labels weir.dev/role=director --state-dir {}",
            manifest.display(),
            folder.path().join(state).display()
        )
    };
    let (as_root, as_user) = (host("root"), host("user"));
    let untouched = everything(&as_root);

    as_root.sh(&apply("root"));
    let capabilities = capabilities();
    as_user.sh(&format!(
        "setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --bounding-set={capabilities} \
         --inh-caps={capabilities} --ambient-caps={capabilities} {}",
        apply("user")
    ));

    let set = everything(&as_root);
    for part in [
        "-A -f ",
        "10.0.0.201",
        "10.0.0.200",
        "600 ",
        "ip_forward:1",
        "chain",
    ] {
        assert!(set.contains(part) && !untouched.contains(part), "{part}: {set}");
    }
    assert_eq!(traces::difference(&set, &everything(&as_user)), "");
}
