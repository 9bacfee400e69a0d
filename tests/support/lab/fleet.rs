//! Agents on nodes, all with the same folder of manifests.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::topology::Node;
use crate::poll::within;
use crate::process::Process;

/// How long agents may take to bring their nodes to what the manifests say.
const SETTLING: Duration = Duration::from_secs(60);
/// Shorter than in service, so that tests see audits.
const AUDIT: &str = "1s";

/// Agents of a program that is given once, their manifests and their state.
#[derive(Debug)]
pub struct Fleet<'a> {
    weir: &'static str,
    folder: TempDir,
    state: TempDir,
    agents: BTreeMap<String, Member<'a>>,
}

#[derive(Debug)]
struct Member<'a> {
    node: &'a Node,
    identity: Vec<String>,
    process: Process,
}

impl<'a> Fleet<'a> {
    /// No agents yet, and no manifests.
    pub fn new(weir: &'static str) -> Self {
        Self {
            weir,
            folder: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
            agents: BTreeMap::new(),
        }
    }

    /// Agents on nodes that have come to what manifests, by the names of their files, say.
    #[track_caller]
    pub fn settled(
        weir: &'static str,
        nodes: impl IntoIterator<Item = &'a Node>,
        manifests: &[(&str, &str)],
    ) -> Self {
        let mut fleet = Self::new(weir);
        for (name, text) in manifests {
            fleet.write(name, text);
        }
        fleet.start_all(nodes);
        fleet.settle();
        fleet
    }

    /// Puts a manifest into the folder as editors and GitOps tools do: written beside it, then renamed.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        let temporary = path.with_extension("new");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    /// Takes a manifest away.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// Takes all manifests away.
    pub fn clear(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    /// Starts an agent on a node, under the node's name; directors are those whose names begin with `d`. It has the two
    /// capabilities that an agent's pod has.
    pub fn start(&mut self, node: &'a Node, more: &[&str]) {
        let mut identity = vec!["--node-name".to_owned(), node.name().to_owned()];
        if node.name().starts_with('d') {
            identity.extend(["--node-labels".to_owned(), "weir.dev/role=director".to_owned()]);
        }
        identity.extend(more.iter().map(|word| (*word).to_owned()));
        identity.extend([
            "--state-dir".to_owned(),
            self.state_of(node).display().to_string(),
        ]);
        let mut command = Command::new("setpriv");
        command.args([
            "--no-new-privs",
            "--bounding-set=-all,+net_admin,+net_raw",
            "--inh-caps=-all",
        ]);
        command
            .args([self.weir, "agent", "--audit-interval", AUDIT])
            .args(&identity);
        command.arg("--manifests").arg(self.folder.path());
        let process = node.netns.spawn(&mut command);
        let member = Member {
            node,
            identity,
            process,
        };
        self.agents.insert(node.name().to_owned(), member);
    }

    /// As [`Self::start`] on several nodes.
    pub fn start_all(&mut self, nodes: impl IntoIterator<Item = &'a Node>) {
        nodes.into_iter().for_each(|node| self.start(node, &[]));
    }

    /// The agent of a node.
    pub fn agent(&mut self, node: &Node) -> &mut Process {
        &mut self.agents.get_mut(node.name()).unwrap().process
    }

    /// Where the agent of a node keeps what must survive it.
    pub fn state_of(&self, node: &Node) -> PathBuf {
        self.state.path().join(node.name())
    }

    /// Waits until on every node nothing is left to do.
    #[track_caller]
    pub fn settle(&self) {
        for member in self.agents.values() {
            let mut last = (None, String::new());
            let settled = within(SETTLING, || {
                last = self.plan(member);
                (last.0 == Some(0)).then_some(())
            });
            assert!(
                settled.is_some(),
                "{} does not come to rest; to do is\n{}\nits log is\n{}",
                member.node.name(),
                last.1,
                member.process.log()
            );
        }
    }

    /// What `weir check --node` says of a node.
    pub fn check(&self, node: &Node) -> Output {
        self.ask(&self.agents[node.name()], &["check", "--node"])
    }

    /// Runs the program on a node, under its agent's name and with the same manifests.
    fn ask(&self, member: &Member<'_>, words: &[&str]) -> Output {
        let folder = self.folder.path().display().to_string();
        let mut line = vec![self.weir];
        line.extend(words);
        line.extend(["-f", &folder]);
        line.extend(member.identity.iter().map(String::as_str));
        member.node.netns.output(&line)
    }

    /// What is left to do on a node, with the status that says whether anything is.
    fn plan(&self, member: &Member<'_>) -> (Option<i32>, String) {
        let output = self.ask(member, &["plan", "--detailed-exitcode"]);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }
}

/// A manifest of the DirectorGroup `edge`, of which a node is active; `more` are further lines of its spec.
pub fn group(active: &str, more: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: DirectorGroup\nmetadata: {{name: edge}}\nspec:\n  \
         nodeSelector: {{matchLabels: {{weir.dev/role: director}}}}\n  \
         failover: {{type: Static, static: {{activeNode: {active}}}}}\n{more}"
    )
}

/// Documents of a RealServer for each node, by one of its addresses, with the label `app: web`; `suffix` tells those of
/// one node apart.
pub fn real_servers(nodes: &[&Node], suffix: &str, address: fn(&Node) -> IpAddr) -> String {
    let of = |node: &&Node| {
        format!(
            "---\napiVersion: weir.dev/v1alpha1\nkind: RealServer\n\
             metadata: {{name: {}-{suffix}, namespace: shop, labels: {{app: web, by: {suffix}}}}}\n\
             spec: {{address: \"{}\"}}\n",
            node.name(),
            address(node)
        )
    };
    nodes.iter().map(of).collect()
}

/// A manifest of a VirtualService of group `edge` that selects all RealServers `app: web`, or those of a suffix: its
/// listeners, and further lines of its spec.
pub fn service(name: &str, vips: &[IpAddr], by: Option<&str>, listeners: &[&str], more: &[&str]) -> String {
    let vips: Vec<String> = vips.iter().map(|vip| format!("\"{vip}\"")).collect();
    let by = by.map(|suffix| format!(", by: {suffix}")).unwrap_or_default();
    let listeners: Vec<String> = (0..)
        .zip(listeners)
        .map(|(number, listener)| format!("  - {{name: l{number}, {listener}}}\n"))
        .collect();
    let more: Vec<String> = more.iter().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: weir.dev/v1alpha1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  addresses: [{}]\n  directorGroupRef: {{name: edge}}\n  \
         backends: [{{name: web, realServers: {{selector: {{matchLabels: {{app: web{by}}}}}}}}}]\n  listeners:\n{}{}",
        vips.join(", "),
        listeners.concat(),
        more.concat()
    )
}
