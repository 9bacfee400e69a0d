//! A control plane for end-to-end tests: a real etcd and a real kube-apiserver, on loopback, for one test.
//!
//! ```no_run
//! use crate::control_plane::{ControlPlane, succeeded};
//!
//! let mut control_plane = ControlPlane::start().await;
//! succeeded(&control_plane.kubectl_reading(&["apply", "-f", "-"], manifest).await);
//! let services: kube::Api<Service> = kube::Api::all(control_plane.client());
//! control_plane.stop_api_server().await; // Does the agent go on?
//! control_plane.start_api_server().await;
//! ```
//!
//! There is no node and no kubelet, and no scheduler unless the test asks for it: a Pod stays Pending unless the test
//! writes its status. (`tests/support/lab/nodes.rs` has nodes that run pods.) There are no controllers either, unless the test
//! asks for them by name ([`ControlPlane::with_controller_manager`]): a namespace does not get its `default` ServiceAccount, owner references are not collected, and EndpointSlices are
//! what the test writes. The test has the API to itself.
//!
//! A control plane belongs to the test that starts it: its client works on that test's tokio runtime only.
//!
//! Setting up cannot fail in a way a test could go on from, so these functions panic, and say what was tried and
//! what came back. A panic, whether here or in the test, prints the end of each server's log.
//!
//! docs/control-plane-tests.md says how the programs are built and how long it all takes.

#![allow(dead_code, unused_imports, reason = "each program uses another part of it")]

mod access;
mod arguments;
mod certificates;
mod gateway;
mod kubectl;
mod layout;
mod port;
mod programs;
mod server;
mod wait;

use std::{path::Path, process::Output};

pub(crate) use access::{BoundTo, ServiceAccountAccess};
use certificates::Authority;
pub(crate) use gateway::{Answer, Asked, Gateway};
use kube::{
    Client,
    api::{GetParams, Request},
};
pub(crate) use kubectl::succeeded;
use layout::Layout;
use port::ReservedPort;
pub(crate) use programs::path as program;
use rustix::process::Signal;
use server::Server;
use tokio::time::Instant;
pub(crate) use wait::{limit, until};

/// A running control plane. Dropping it kills its servers and removes its run folder; the kernel kills them too
/// when the test's process ends without dropping anything.
pub(crate) struct ControlPlane {
    client: Client,
    // The order is the order of dropping: servers before what they talk to, the folder last.
    beside_the_api_server: Vec<(Server, ReservedPort)>,
    api_server: Option<Server>,
    _etcd: Server,
    port: ReservedPort,
    authority: Authority,
    layout: Layout,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver and returns when the API answers an authenticated request.
    ///
    /// # Panics
    /// When the programs are not built, or when the servers are not ready in time.
    pub(crate) async fn start() -> Self {
        let layout = Layout::create();
        let authority = Authority::new();
        let port = ReservedPort::take();
        layout.write_credentials(&authority);
        let admin = admin_kubeconfig(&authority, &port);
        layout.write("admin.kubeconfig", &admin);

        let mut control_plane = Self {
            client: access::client(&admin).await,
            beside_the_api_server: Vec::new(),
            api_server: None,
            _etcd: Server::start("etcd", arguments::etcd(), layout.folder()),
            port,
            authority,
            layout,
        };
        // It waits for etcd by itself.
        control_plane.start_api_server().await;
        control_plane
    }

    /// Starts kube-controller-manager with these controllers and no others, for example
    /// `&["namespace-controller", "garbage-collector-controller"]`, and returns when it is healthy.
    ///
    /// A started controller still has to fill its caches: poll for what it does.
    pub(crate) async fn with_controller_manager(self, controllers: &[&str]) -> Self {
        let arguments = |port| arguments::controller_manager(port, controllers);
        self.with("kube-controller-manager", arguments).await
    }

    /// Starts kube-scheduler and returns when it is healthy.
    pub(crate) async fn with_scheduler(self) -> Self {
        self.with("kube-scheduler", arguments::scheduler).await
    }

    async fn with(mut self, name: &'static str, arguments: impl FnOnce(u16) -> Vec<String>) -> Self {
        let port = ReservedPort::take();
        let mut server = Server::start(name, arguments(port.number()), self.layout.folder());
        let health = access::client(&admin_kubeconfig(&self.authority, &port)).await;
        answers_ok(&mut server, &health, "healthz").await;
        self.beside_the_api_server.push((server, port));
        self
    }

    /// Starts the API server that [`Self::stop_api_server`] stopped: the same address, certificates and data.
    pub(crate) async fn start_api_server(&mut self) {
        assert!(self.api_server.is_none(), "the API server runs already");
        let arguments = arguments::api_server(self.port.number());
        let server = self
            .api_server
            .insert(Server::start("kube-apiserver", arguments, self.layout.folder()));
        answers_ok(server, &self.client, "readyz").await;
    }

    /// Ends the API server as a rolling update does, by SIGTERM; etcd goes on. Watches are cut off, connections
    /// are refused from then on.
    pub(crate) async fn stop_api_server(&mut self) {
        let mut server = self.api_server.take().expect("the API server was started");
        server.terminate().await;
    }

    /// Ends the API server at once, as a crash does.
    pub(crate) fn kill_api_server(&mut self) {
        drop(self.api_server.take().expect("the API server was started"));
    }

    /// Lets the API server do nothing more, as when its machine hangs: connections stay, and new ones are accepted
    /// by the kernel, but nothing is answered until [`Self::thaw_api_server`].
    pub(crate) fn freeze_api_server(&self) {
        self.running_api_server().freeze();
    }

    /// Lets the API server go on.
    pub(crate) fn thaw_api_server(&self) {
        self.running_api_server().signal(Signal::CONT);
    }

    fn running_api_server(&self) -> &Server {
        self.api_server.as_ref().expect("the API server was started")
    }

    /// A client with all rights.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The API server's URL on this machine's loopback.
    pub(crate) fn url(&self) -> String {
        loopback(&self.port)
    }

    /// The API server's URL in a QEMU guest with a user network, where 10.0.2.2 is the host's loopback.
    pub(crate) fn guest_url(&self) -> String {
        format!("https://10.0.2.2:{}", self.port.number())
    }

    /// The run folder, where tests may put files of their own. `ca.crt` is the authority that everybody here
    /// trusts; `server.crt` and `server.key` do for a test's own server on loopback, such as a webhook.
    pub(crate) fn folder(&self) -> &Path {
        self.layout.folder()
    }

    /// Puts the objects of `deploy/` into the cluster, and waits until their definitions are served.
    pub(crate) async fn deploy(&self) {
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
        succeeded(&self.kubectl(&["apply", "-k", deploy]).await);
        let established = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=60s",
        ];
        succeeded(&self.kubectl(&established).await);
    }

    /// Runs kubectl with all rights.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_reading(arguments, "").await
    }

    /// Runs kubectl with all rights and this text on its standard input, for `-f -`.
    pub(crate) async fn kubectl_reading(&self, arguments: &[&str], input: &str) -> Output {
        kubectl::run(self.folder(), arguments, input).await
    }

    /// A kubeconfig for a user with a certificate, such as `system:kube-proxy` or, in the group `system:nodes`,
    /// `system:node:NAME`. `server` is the API server's URL where it is used.
    pub(crate) fn kubeconfig_for_user(&self, name: &str, group: Option<&str>, server: &str) -> String {
        access::certificate_kubeconfig(&self.authority, name, group, server)
    }

    /// A kubeconfig with a token of a ServiceAccount, which must exist, and so must what the token is bound to.
    pub(crate) async fn kubeconfig_for_service_account(&self, access: &ServiceAccountAccess<'_>) -> String {
        let server = access.server.map_or_else(|| self.url(), str::to_owned);
        access::service_account_kubeconfig(&self.authority, self.client(), access, &server).await
    }

    /// The kubeconfig of the agent of a node of the guest's: the rights of `deploy/`, which must be applied, and a token that
    /// is bound to the node.
    pub(crate) async fn agent_kubeconfig(&self, node: &str) -> String {
        let access = ServiceAccountAccess {
            namespace: "weir-system",
            name: "weir-agent",
            bound_to: BoundTo::Node(node),
            audiences: &[],
            server: Some(&self.guest_url()),
        };
        self.kubeconfig_for_service_account(&access).await
    }

    /// The kubeconfig of the controller on this host, with the rights of `deploy/`, which must be applied.
    pub(crate) async fn controller_kubeconfig(&self) -> String {
        let access = ServiceAccountAccess {
            namespace: "weir-system",
            name: "weir-controller",
            bound_to: BoundTo::ServiceAccount,
            audiences: &[],
            server: None,
        };
        self.kubeconfig_for_service_account(&access).await
    }

    /// A client with the rights of a kubeconfig that one of the functions above made for loopback.
    pub(crate) async fn client_for(&self, kubeconfig: &str) -> Client {
        access::client(kubeconfig).await
    }
}

fn loopback(port: &ReservedPort) -> String {
    format!("https://127.0.0.1:{}", port.number())
}

/// A user whom no authorizer is asked about.
fn admin_kubeconfig(authority: &Authority, port: &ReservedPort) -> String {
    access::certificate_kubeconfig(authority, "admin", Some("system:masters"), &loopback(port))
}

/// Polls a server's health endpoint with a credential, since without one it answers 401 from the first moment.
async fn answers_ok(server: &mut Server, client: &Client, endpoint: &str) {
    let began = Instant::now();
    let waiting_for = format!("{} to be ready", server.name());
    until(&waiting_for, limit(60), async || {
        server.assert_running();
        let request = Request::new("")
            .get(endpoint, &GetParams::default())
            .map_err(|error| error.to_string())?;
        client
            .request_text(request)
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    eprintln!("{} was ready after {:?}", server.name(), began.elapsed());
}
