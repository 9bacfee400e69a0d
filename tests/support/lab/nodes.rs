//! Kubernetes nodes in the VM: nodes of the topology that run pods, with containerd and a kubelet each.
//!
//! The API server is on the host ([`super::remote`]). The programs that Debian does not have come from `tests/tools/build`;
//! `nodes/node` says how a network namespace becomes a node.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::remote::{Boot, Program, Vm};
use crate::poll::eventually;

/// Go programs that a node needs.
pub const PROGRAMS: [&str; 4] = ["containerd", "containerd-shim-runc-v2", "ctr", "kubelet"];
/// The image of the helper program, which only waits unless it is given other arguments: it holds pods' namespaces together.
pub const LAB_IMAGE: &str = "localhost/lab:1";
/// Addresses of Services; only that of the API server leads anywhere, since no kube-proxy runs.
const SERVICES: &str = "10.96.0.0/16";
const API_SERVICE: &str = "10.96.0.1";
const STARTING: Duration = Duration::from_secs(60);
/// What a failed test shows of a node: the ends of what its programs and its pods have written.
const LOGS: &str = "tail -n 40 /var/log/*.log /var/log/pods/*/*/*.log";

/// How to boot a VM that can hold such nodes, given where the [`PROGRAMS`] are on the host.
pub fn boot(programs: &[PathBuf]) -> Boot {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/nodes");
    let mut files = vec![(scripts.into(), "/lab/nodes".to_owned())];
    files.extend(programs.iter().map(|path| {
        let name = path.file_name().expect("it is a program").display();
        (path.clone(), format!("/lab/{name}"))
    }));
    Boot {
        kernel: Some("6.12".to_owned()),
        files,
        options: ["--base", "nodes", "--memory", "4096"]
            .map(str::to_owned)
            .to_vec(),
        ..Boot::default()
    }
}

/// What makes a node of the topology one of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Membership<'a> {
    /// Its name, in both.
    pub name: &'a str,
    /// Its address in the cluster.
    pub address: &'a str,
    /// The network of its pods.
    pub pods: &'a str,
}

/// A running node. When the test fails, the ends of its logs are printed.
#[derive(Debug)]
pub struct KubernetesNode<'vm> {
    vm: &'vm Vm,
    name: String,
    address: String,
    kubelet: Option<Program<'vm>>,
}

impl<'vm> KubernetesNode<'vm> {
    /// Starts containerd and waits until it answers, gives it the [`LAB_IMAGE`], and starts the kubelet.
    ///
    /// The kubeconfig is the kubelet's. `api_server` is the API server's address and port, as nodes reach it.
    pub fn start(vm: &'vm Vm, membership: Membership<'_>, kubeconfig: &str, api_server: &str) -> Self {
        let Membership { name, address, pods } = membership;
        let folder = format!("/lab/nodes/{name}");
        vm.put(&format!("{folder}/kubelet.kubeconfig"), kubeconfig);
        vm.put(&format!("{folder}/cni/pods.conflist"), &network(pods));
        // Nobody asks for a name, but without this file no pod starts.
        vm.put(&format!("{folder}/resolv.conf"), "");
        vm.sh(
            name,
            &format!(
                "ip route add {SERVICES} via 10.0.2.2
                nft 'add table ip services
                add chain ip services output {{ type nat hook output priority -100; }}
                add chain ip services prerouting {{ type nat hook prerouting priority -100; }}
                add chain ip services postrouting {{ type nat hook postrouting priority 100; }}
                add rule ip services output ip daddr {API_SERVICE} tcp dport 443 dnat to {api_server}
                add rule ip services prerouting ip daddr {API_SERVICE} tcp dport 443 dnat to {api_server}
                add rule ip services postrouting ip saddr {pods} ct status dnat oifname != cni0 masquerade'"
            ),
        );
        let containerd = vm.start(Some(name), &["/lab/nodes/node", "start", name]);
        let mut node = Self {
            vm,
            name: name.to_owned(),
            address: address.to_owned(),
            kubelet: None,
        };
        eventually(STARTING, "containerd answers", || {
            assert_eq!(
                containerd.ended(),
                None,
                "containerd of {name} ended: {}",
                containerd.log()
            );
            let answer = vm.run(Some(name), &["/lab/nodes/node", "run", name, "ctr", "version"]);
            (answer.status == 0).then_some(())
        });
        node.import(LAB_IMAGE, "/lab/lab pause");
        node.start_kubelet();
        node
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a shell command line in the node and hands back what it printed.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.vm.run(
            Some(&self.name),
            &["/lab/nodes/node", "run", &self.name, "sh", "-c", line],
        );
        assert_eq!(
            output.status, 0,
            "{}: {line}: {}{}",
            self.name, output.stdout, output.stderr
        );
        output.stdout
    }

    /// Makes an image of a program of the VM and the arguments it has unless a pod names others, and gives it to containerd.
    pub fn import(&self, image: &str, program: &str) {
        self.sh(&format!(
            "/lab/nodes/image {image} {program} | ctr --namespace k8s.io images import --local -"
        ));
    }

    /// Gives an image another name.
    pub fn tag(&self, image: &str, name: &str) {
        self.sh(&format!("ctr --namespace k8s.io images tag {image} {name}"));
    }

    /// Starts the kubelet.
    pub fn start_kubelet(&mut self) {
        let line = format!(
            "exec >/var/log/kubelet.log 2>&1; exec kubelet --config /lab/nodes/kubelet.yaml --kubeconfig /etc/kubernetes/kubelet.kubeconfig \
             --hostname-override {} --node-ip {}",
            self.name, self.address
        );
        let words = ["/lab/nodes/node", "run", &self.name, "sh", "-c", &line];
        self.kubelet = Some(self.vm.start(Some(&self.name), &words));
    }

    /// Kills the kubelet and waits until it is gone; pods go on.
    pub fn kill_kubelet(&mut self) {
        let kubelet = self.kubelet.take().expect("the kubelet was started");
        kubelet.signal(Signal::KILL);
        eventually(STARTING, "the kubelet is gone", || kubelet.ended());
    }
}

impl Drop for KubernetesNode<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let words = ["/lab/nodes/node", "run", &self.name, "sh", "-c", LOGS];
        match self.vm.try_run(Some(&self.name), &words) {
            Ok(output) => eprintln!("--- node {} ---\n{}", self.name, output.stdout),
            Err(error) => eprintln!("--- node {}: no logs: {error} ---", self.name),
        }
    }
}

/// The network of a node's pods, for CNI: a bridge whose address is the pods' router.
fn network(pods: &str) -> String {
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
    "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{pods}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}}
]}}
"#
    )
}
