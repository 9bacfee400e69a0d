//! The control plane that other tests rely on, tested by itself.
//!
//! Run by `make test-control-plane`; docs/control-plane-tests.md says what it needs.

use std::{future::ready, pin::pin, process::Output, thread, time::Duration};

use crate::control_plane::{BoundTo, ControlPlane, ServiceAccountAccess, limit, succeeded, until};
use futures::StreamExt;
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, UserInfo},
    core::v1::{ConfigMap, Namespace, Secret},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams, WatchParams},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

const ADDRESSES: &str = include_str!("../data/selftest/crd.yaml");
const ACCESS: &str = include_str!("../data/selftest/access.yaml");

/// An object of the kind that crd.yaml defines.
fn address(name: &str, address: &str) -> String {
    format!(
        "{{apiVersion: selftest.weir.test/v1, kind: Address, metadata: {{name: {name}}}, spec: {{address: '{address}'}}}}"
    )
}

async fn apply(control_plane: &ControlPlane, manifest: &str) -> Output {
    control_plane
        .kubectl_reading(&["apply", "-f", "-"], manifest)
        .await
}

/// Defines the kind `Address` and waits until it is served.
async fn define_addresses(control_plane: &ControlPlane) {
    succeeded(&apply(control_plane, ADDRESSES).await);
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd/addresses.selftest.weir.test",
    ];
    succeeded(&control_plane.kubectl(&wait).await);
}

/// Whom the API server takes the holder of a client's credential for.
async fn who_am_i(client: Client) -> UserInfo {
    let review = Api::all(client)
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await;
    let status = review.expect("whoever has a credential may ask").status;
    status
        .and_then(|status| status.user_info)
        .expect("the answer names a user")
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn an_object_that_breaks_a_rule_of_its_crd_is_refused_with_the_rules_message() {
    let control_plane = ControlPlane::start().await;
    define_addresses(&control_plane).await;

    succeeded(&apply(&control_plane, &address("good", "192.0.2.1")).await);
    let refused = apply(&control_plane, &address("bad", "192.0.2")).await;

    assert!(!refused.status.success());
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("192.0.2 is not an IP address"), "{message}");
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn the_api_server_comes_back_with_its_address_and_data() {
    let mut control_plane = ControlPlane::start().await;
    define_addresses(&control_plane).await;
    succeeded(&apply(&control_plane, &address("kept", "192.0.2.1")).await);
    let (url, client) = (control_plane.url(), control_plane.client());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let events = namespaces.watch(&WatchParams::default(), "0").await.unwrap();
    let watch = tokio::spawn(events.for_each(|_| ready(())));

    control_plane.stop_api_server().await;
    timeout(limit(5), watch)
        .await
        .expect("the watch was cut off")
        .unwrap();
    client.apiserver_version().await.expect_err("nothing listens");
    control_plane.start_api_server().await;

    let read = control_plane
        .kubectl(&["get", "address", "kept", "-o", "jsonpath={.spec.address}"])
        .await;
    assert_eq!(succeeded(&read), "192.0.2.1");
    assert_eq!(control_plane.url(), url);
    client
        .apiserver_version()
        .await
        .expect("a client from before the stop works on");

    control_plane.kill_api_server();
    control_plane.start_api_server().await;
    let read = control_plane.kubectl(&["get", "addresses", "-o", "name"]).await;
    assert_eq!(succeeded(&read), "address.selftest.weir.test/kept\n");
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_frozen_api_server_answers_once_it_is_thawed() {
    let control_plane = ControlPlane::start().await;
    let client = control_plane.client();

    control_plane.freeze_api_server();
    let mut asking = pin!(client.apiserver_version());
    timeout(Duration::from_millis(500), &mut asking)
        .await
        .expect_err("nobody answers");
    control_plane.thaw_api_server();

    timeout(limit(10), asking)
        .await
        .expect("in time")
        .expect("the same request is answered");
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_service_account_may_do_what_its_role_says_and_nothing_else() {
    let control_plane = ControlPlane::start().await;
    succeeded(&apply(&control_plane, ACCESS).await);

    let agent = ServiceAccountAccess {
        namespace: "selftest",
        name: "agent",
        ..Default::default()
    };
    let kubeconfig = control_plane.kubeconfig_for_service_account(&agent).await;
    let client = control_plane.client_for(&kubeconfig).await;

    assert_eq!(
        who_am_i(client.clone()).await.username.as_deref(),
        Some("system:serviceaccount:selftest:agent")
    );
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "selftest");
    assert_eq!(
        config_maps.get("settings").await.unwrap().data.unwrap()["answer"],
        "42"
    );
    let secrets: Api<Secret> = Api::namespaced(client, "selftest");
    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_token_bound_to_a_node_says_which_node_and_ends_with_it() {
    let control_plane = ControlPlane::start().await;
    succeeded(&apply(&control_plane, ACCESS).await);

    for (name, bound_to) in [
        ("by-node", BoundTo::Node("node-a")),
        ("by-pod", BoundTo::Pod("agent-on-node-a")),
    ] {
        let agent = ServiceAccountAccess {
            namespace: "selftest",
            name: "agent",
            bound_to,
            ..Default::default()
        };
        let kubeconfig = control_plane.kubeconfig_for_service_account(&agent).await;
        let extra = who_am_i(control_plane.client_for(&kubeconfig).await)
            .await
            .extra
            .unwrap();
        assert_eq!(
            extra["authentication.kubernetes.io/node-name"],
            ["node-a"],
            "{name}"
        );
    }

    let bound_to = BoundTo::Node("node-a");
    let agent = ServiceAccountAccess {
        namespace: "selftest",
        name: "agent",
        bound_to,
        ..Default::default()
    };
    let kubeconfig = control_plane.kubeconfig_for_service_account(&agent).await;
    let client = control_plane.client_for(&kubeconfig).await;
    succeeded(&control_plane.kubectl(&["delete", "node", "node-a"]).await);
    let config_maps: Api<ConfigMap> = Api::namespaced(client, "selftest");
    // The API server remembers for 10 s that a token was good.
    until("the token to be refused", limit(30), async || {
        match config_maps.get("settings").await {
            Err(kube::Error::Api(status)) if status.code == 401 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn a_kubeconfig_works_at_an_address_that_is_not_in_the_servers_certificate() {
    let control_plane = ControlPlane::start().await;
    succeeded(&apply(&control_plane, ACCESS).await);
    // What 10.0.2.2 is to a guest: another address, from which connections are passed on to the host's loopback.
    let elsewhere = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let url = format!("https://{}", elsewhere.local_addr().unwrap());
    tokio::spawn(pass_on(elsewhere, control_plane.url().replace("https://", "")));

    let agent = ServiceAccountAccess {
        namespace: "selftest",
        name: "agent",
        server: Some(&url),
        ..Default::default()
    };
    let kubeconfig = control_plane.kubeconfig_for_service_account(&agent).await;

    who_am_i(control_plane.client_for(&kubeconfig).await).await;
    let file = control_plane.folder().join("agent.kubeconfig");
    std::fs::write(&file, kubeconfig).unwrap();
    let read = [
        "--kubeconfig",
        file.to_str().unwrap(),
        "get",
        "configmap",
        "settings",
        "-o",
        "name",
    ];
    assert_eq!(
        succeeded(&control_plane.kubectl(&read).await),
        "configmap/settings\n"
    );
}

async fn pass_on(listener: TcpListener, to: String) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut far = TcpStream::connect(&to).await.expect("the API server listens");
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    }
}

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
async fn only_the_named_controllers_run() {
    let control_plane = ControlPlane::start()
        .await
        .with_controller_manager(&["namespace-controller"])
        .await;
    let namespaces: Api<Namespace> = Api::all(control_plane.client());
    succeeded(
        &control_plane
            .kubectl(&["create", "namespace", "short-lived"])
            .await,
    );
    succeeded(
        &control_plane
            .kubectl(&["delete", "namespace", "short-lived", "--wait=false"])
            .await,
    );

    until("the namespace to be gone", limit(60), async || {
        match namespaces.get_opt("short-lived").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let accounts = control_plane
        .kubectl(&["get", "serviceaccounts", "-A", "-o", "name"])
        .await;
    assert_eq!(
        succeeded(&accounts),
        "",
        "the serviceaccount-controller was not asked for"
    );
}

/// The kernel counts the thread that started a child as the parent whose end the child must not survive.
#[test]
#[ignore = "needs etcd and kube-apiserver: make test-control-plane"]
fn the_servers_outlive_the_thread_that_started_them() {
    let run = || tokio::runtime::Runtime::new().unwrap();
    let control_plane = thread::spawn(move || run().block_on(ControlPlane::start()))
        .join()
        .unwrap();

    let ready = run().block_on(control_plane.kubectl(&["get", "--raw", "/readyz/etcd"]));

    assert_eq!(succeeded(&ready), "ok");
}
