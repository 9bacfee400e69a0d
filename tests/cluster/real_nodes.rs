//! The chart on real Kubernetes nodes, along the walk of docs/kubernetes.md, with clients that notice when something is lost.
//! What is shown is what pods make of it: that the agent's pod may do what it must, as it is shipped.

use std::collections::BTreeSet;

use crate::control_plane::{limit, until};
use crate::real_cluster::{
    self, Clients, Cluster, IMAGE, NAMESPACE, NEXT_IMAGE, NODES, PODS_VIP, VIPS, WEB_VIP, hosts, is_ready,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use tokio::time::Instant;

/// What Weir changes about a node. Links and rules of pods, and the kubelet's rules, come and go by themselves.
const TRACES: &str = "ip -oneline address show | grep -v 'cni0\\|veth'; ip -oneline link show | grep weir
    nft list tables | grep weir; ip rule show; ipvsadm -Sn; ip fou show; cat /proc/sys/net/ipv4/vs/conntrack";

/// Which pods these are, and how often their containers have been started again.
fn lives(pods: &[Pod]) -> BTreeSet<String> {
    let life = |pod: &Pod| {
        let containers = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        let restarts: i32 = containers.map(|container| container.restart_count).sum();
        format!("{:?} {restarts}", pod.metadata.uid)
    };
    pods.iter().map(life).collect()
}

fn uids<'a>(pods: impl Iterator<Item = &'a Pod>) -> Vec<Option<String>> {
    pods.map(|pod| pod.metadata.uid.clone()).collect()
}

fn whereabouts(pods: &[Pod]) -> BTreeSet<&str> {
    let nodes = pods.iter().map(|pod| pod.spec.as_ref()?.node_name.as_deref());
    nodes.flatten().collect()
}

/// What is done to the cluster, and what must come of it.
impl Cluster<'_> {
    async fn is_set_up(&mut self) {
        self.takes_step("Install").await;
        self.release(IMAGE).await;
        self.takes_step("Say who balances").await;
        self.takes_step("Balance pods").await;
        self.takes_step("Balance hosts").await;
    }

    async fn pods_and_hosts_answer(&self) {
        let pods = self.pods("shop", 4, is_ready).await;
        assert_eq!(whereabouts(&pods), NODES.map(|node| node.name).into());
        self.answers(PODS_VIP, 4).await;
        assert_eq!(self.answers(WEB_VIP, 3).await, ["rs1", "rs2", "rs3"]);
    }

    async fn nothing_is_lost_when_an_agent_is_deleted(&self) {
        let clients = Clients::start(self.vm, &VIPS).await;
        let agents = self.release(IMAGE).await;
        let name = agents["d1"].metadata.name.as_deref().expect("a pod has a name");
        self.types(&format!("kubectl delete pod -n {NAMESPACE} {name} --wait=false"));
        self.release(IMAGE).await;
        clients.assert_none_lost("the director's agent was deleted").await;
    }

    async fn nothing_is_lost_when_a_kubelet_is_killed(&mut self) {
        let clients = Clients::start(self.vm, &VIPS).await;
        let pods = lives(&self.pods("shop", 4, is_ready).await);
        self.nodes[0].kill_kubelet();
        // The agent goes on without it.
        self.takes_step("Take a real server out of service").await;
        self.assert_weight_in_the_kernel(0);
        self.takes_step("And back").await;
        self.assert_weight_in_the_kernel(1);
        let last = self.sign_of_life("d1").await;
        self.nodes[0].start_kubelet();
        until("the kubelet to live again", limit(180), async || {
            let now = self.sign_of_life("d1").await;
            if now == last {
                Err(format!("{now:?}"))
            } else {
                Ok(())
            }
        })
        .await;
        assert_eq!(lives(&self.pods("shop", 4, is_ready).await), pods);
        clients
            .assert_none_lost("the director's kubelet was killed")
            .await;
    }

    /// Of the real server that the walk takes out of service.
    fn assert_weight_in_the_kernel(&self, weight: u32) {
        let table = self.vm.sh("d1", "ipvsadm -Sn");
        let entry = format!("-a -t {WEB_VIP}:80 -r 10.0.0.12:80 -g -w {weight}\n");
        assert!(table.contains(&entry), "{table}");
    }

    /// When the kubelet of a node last said that it lives.
    async fn sign_of_life(&self, node: &str) -> Option<MicroTime> {
        let leases: Api<Lease> = Api::namespaced(self.control_plane.client(), "kube-node-lease");
        leases
            .get(node)
            .await
            .expect("a node has a lease")
            .spec?
            .renew_time
    }

    /// It is the director's node. The agents stay, since packets still come, and so do the connections to hosts; those to pods
    /// end with the pods.
    async fn no_request_is_lost_when_a_node_is_drained(&mut self) {
        let clients = Clients::start(self.vm, &[WEB_VIP]).await;
        let agents = uids(self.release(IMAGE).await.values());
        self.takes_step("Drain a node").await;
        let pods = self.pods("shop", 4, is_ready).await;
        assert_eq!(whereabouts(&pods), ["rs1"].into());
        self.answers(PODS_VIP, 4).await;
        assert_eq!(uids(self.release(IMAGE).await.values()), agents);
        clients.assert_none_lost("the director's node was drained").await;
    }

    async fn no_request_is_lost_when_a_deployment_is_rolled(&mut self) {
        let clients = Clients::start(self.vm, &[WEB_VIP]).await;
        let old = self.pods("shop", 4, is_ready).await;
        self.takes_step("Update the pods").await;
        let is_new = |pod: &Pod| is_ready(pod) && old.iter().all(|old| old.metadata.uid != pod.metadata.uid);
        self.pods("shop", 4, is_new).await;
        self.answers(PODS_VIP, 4).await;
        clients.assert_none_lost("the Deployment was rolled").await;
    }

    async fn nothing_is_lost_when_the_chart_is_upgraded(&mut self) {
        let clients = Clients::start(self.vm, &VIPS).await;
        self.takes_step("Upgrade Weir").await;
        self.release(NEXT_IMAGE).await;
        clients.assert_none_lost("the DaemonSet was rolled").await;
    }

    async fn nothing_is_left_when_the_chart_is_uninstalled(&mut self, before: &[String]) {
        self.takes_step("Take it out").await;
        self.pods(NAMESPACE, 0, is_ready).await;
        for (node, before) in self.nodes.iter().zip(before) {
            assert_eq!(node.sh(TRACES), *before, "{}", node.name());
            node.sh("test -e /var/lib/weir/ledger");
        }
        assert_eq!(self.types("kubectl get crds -o name").lines().count(), 4);
        self.assert_at_the_end_of_the_walk();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the lab VM and Kubernetes' programs: make test-real-nodes"]
async fn the_chart_balances_on_real_nodes_whatever_happens_to_pods_and_kubelets() {
    let began = Instant::now();
    let passed = |what: &str| eprintln!("{what} after {:.0?}", began.elapsed());
    let control_plane = real_cluster::control_plane().await;
    let vm = real_cluster::vm();
    passed("the VM answered");
    let mut cluster = Cluster::form(&control_plane, &vm);
    let before = cluster.nodes.each_ref().map(|node| node.sh(TRACES));
    let _hosts = hosts(&vm);
    passed("the nodes were started");

    cluster.is_set_up().await;
    passed("all was set up");
    cluster.pods_and_hosts_answer().await;
    passed("all real servers answered");
    cluster.nothing_is_lost_when_an_agent_is_deleted().await;
    passed("the deleted agent was back");
    cluster.nothing_is_lost_when_a_kubelet_is_killed().await;
    passed("the killed kubelet was back");
    cluster.no_request_is_lost_when_a_node_is_drained().await;
    passed("the node was drained");
    cluster.no_request_is_lost_when_a_deployment_is_rolled().await;
    passed("the Deployment was rolled");
    cluster.nothing_is_lost_when_the_chart_is_upgraded().await;
    passed("the chart was upgraded");
    cluster
        .nothing_is_left_when_the_chart_is_uninstalled(&before)
        .await;
    passed("the chart was uninstalled");
}
