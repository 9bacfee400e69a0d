//! Who may talk to the API server, and how: kubeconfigs, tokens, clients.

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
};
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::certificates::{Authority, Credential};

/// A ServiceAccount's access to the API, for [`super::ControlPlane::kubeconfig_for_service_account`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceAccountAccess<'a> {
    /// The ServiceAccount's namespace.
    pub(crate) namespace: &'a str,
    /// The ServiceAccount's name.
    pub(crate) name: &'a str,
    /// Whom the token is meant for; if empty, the API server.
    pub(crate) audiences: &'a [&'a str],
    /// The object with which the token ends.
    pub(crate) bound_to: BoundTo<'a>,
    /// The API server's URL where the kubeconfig is used; if none, on this machine's loopback.
    pub(crate) server: Option<&'a str>,
}

/// The object whose deletion makes a token invalid, as the kubelet binds a Pod's token to the Pod.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum BoundTo<'a> {
    /// Nothing but the ServiceAccount itself.
    #[default]
    ServiceAccount,
    /// A Node. The API server then knows the holder's node, which admission policies can compare with.
    Node(&'a str),
    /// A Pod of the ServiceAccount, in its namespace; through it the API server knows the node too.
    Pod(&'a str),
}

impl BoundTo<'_> {
    fn reference(self) -> Option<BoundObjectReference> {
        let (kind, name) = match self {
            Self::ServiceAccount => return None,
            Self::Node(name) => ("Node", name),
            Self::Pod(name) => ("Pod", name),
        };
        Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some(kind.into()),
            name: Some(name.into()),
            // The API server fills in the uid of the object that has this name now.
            uid: None,
        })
    }
}

/// A kubeconfig for a user with a client certificate: its name and, if any, its group.
pub(crate) fn certificate_kubeconfig(
    authority: &Authority,
    name: &str,
    group: Option<&str>,
    server: &str,
) -> String {
    let Credential { public, private } = authority.user(name, group);
    let user = json!({ "client-certificate-data": base64(public), "client-key-data": base64(private) });
    kubeconfig(authority, server, "default", user)
}

/// A kubeconfig for a ServiceAccount, with a token that the API server is asked for now.
pub(crate) async fn service_account_kubeconfig(
    authority: &Authority,
    admin: Client,
    access: &ServiceAccountAccess<'_>,
    server: &str,
) -> String {
    let token = request_token(admin, access).await;
    kubeconfig(authority, server, access.namespace, json!({ "token": token }))
}

/// A client of its own for the user of a kubeconfig.
pub(crate) async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).expect("the kubeconfig was written here");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("the kubeconfig is complete");
    // A proxy of the developer's environment does not lead to this machine's loopback.
    config.proxy_url = None;
    Client::try_from(config).expect("the certificates were made here")
}

async fn request_token(admin: Client, access: &ServiceAccountAccess<'_>) -> String {
    let ServiceAccountAccess {
        namespace,
        name,
        audiences,
        bound_to,
        server: _,
    } = access;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(ToString::to_string).collect(),
            bound_object_ref: bound_to.reference(),
            expiration_seconds: None,
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(admin, namespace);
    let answer = accounts
        .create_token_request(name, &Default::default(), &request)
        .await
        .unwrap_or_else(|error| panic!("no token for {namespace}/{name} bound to {bound_to:?}: {error}"));
    answer
        .status
        .expect("an answered TokenRequest has a status")
        .token
}

/// A kubeconfig is YAML, of which JSON is a part. Everything is embedded, so that it works wherever it is copied.
fn kubeconfig(authority: &Authority, server: &str, namespace: &str, user: Value) -> String {
    let cluster = json!({
        "server": server,
        "certificate-authority-data": base64(authority.certificate()),
        // The server's certificate has this name whatever address it is reached by.
        "tls-server-name": "localhost",
    });
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": cluster }],
        "users": [{ "name": "test", "user": user }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": namespace } }],
        "current-context": "test",
    });
    format!("{kubeconfig:#}\n")
}

/// Bytes as they are written in a Kubernetes object: base64.
fn base64(text: String) -> ByteString {
    ByteString(text.into_bytes())
}
