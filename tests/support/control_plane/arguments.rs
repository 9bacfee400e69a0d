//! The servers' flags: what an ordinary cluster has, except where a comment says otherwise.

/// Where etcd listens, for its API server: a socket file in the run folder, so it needs no port and nobody else
/// can reach it. etcd wants a port number in every address; with this scheme the whole is the file's name.
const ETCD: &str = "unix://etcd:0";

/// Where etcd would listen for other members.
const ETCD_PEERS: &str = "unix://etcd-peers:0";

/// One range per family, so that Services can be of either or both.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";

/// etcd, in the run folder.
pub(crate) fn etcd() -> Vec<String> {
    vec![
        "--data-dir=etcd.data".into(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
        format!("--initial-cluster=default={ETCD_PEERS}"),
        // The data need not survive a power cut, and a shared disk can take a second for each fsync.
        "--unsafe-no-fsync".into(),
        "--log-format=console".into(),
    ]
}

/// kube-apiserver, on this port of 127.0.0.1.
pub(crate) fn api_server(port: u16) -> Vec<String> {
    vec![
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--etcd-servers={ETCD}"),
        "--client-ca-file=ca.crt".into(),
        "--tls-cert-file=server.crt".into(),
        "--tls-private-key-file=server.key".into(),
        "--anonymous-auth=false".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        "--service-account-key-file=token.pub".into(),
        "--service-account-signing-key-file=token.key".into(),
        format!("--service-cluster-ip-range={SERVICE_RANGES}"),
        // DaemonSets like our agent's use the host's network and paths.
        "--allow-privileged=true".into(),
        // The address of 127.0.0.1 is of no use as an endpoint of the Service `kubernetes`.
        "--endpoint-reconciler-type=none".into(),
        // Without it, a SIGTERM takes a minute as long as somebody watches.
        "--shutdown-watch-termination-grace-period=1s".into(),
        // The controller-manager reads these back, and complains for ever when they are missing.
        "--requestheader-client-ca-file=ca.crt".into(),
        "--requestheader-allowed-names=front-proxy".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
    ]
}

/// kube-controller-manager with these controllers only, on this port of 127.0.0.1.
pub(crate) fn controller_manager(port: u16, controllers: &[&str]) -> Vec<String> {
    let own = vec![
        format!("--controllers={}", controllers.join(",")),
        "--root-ca-file=ca.crt".into(),
        "--service-account-private-key-file=token.key".into(),
        format!("--service-cluster-ip-range={SERVICE_RANGES}"),
    ];
    [beside_the_api_server(port), own].concat()
}

/// kube-scheduler, on this port of 127.0.0.1.
pub(crate) fn scheduler(port: u16) -> Vec<String> {
    beside_the_api_server(port)
}

/// What the controller-manager and the scheduler have in common.
fn beside_the_api_server(port: u16) -> Vec<String> {
    vec![
        "--kubeconfig=admin.kubeconfig".into(),
        "--authentication-kubeconfig=admin.kubeconfig".into(),
        "--authorization-kubeconfig=admin.kubeconfig".into(),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        "--tls-cert-file=server.crt".into(),
        "--tls-private-key-file=server.key".into(),
        // There is no other one to elect against.
        "--leader-elect=false".into(),
    ]
}
