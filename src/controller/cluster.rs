//! What the controller knows of the cluster, and which objects a piece of news concerns. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::{
    DirectorGroupStatus, DirectorRole, NodeStateStatus, RealServerStatus, VirtualServiceStatus,
};
use crate::plan::{
    Directing, Finding, Generation, Generations, Kind, NamespacedName, Node, ObjectRef, Role, Scope,
    Snapshot, Update,
};

/// One of Weir's objects as the API has it, beside its form.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Tells it from one of the same name that was there before.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// Whether it is deleted and waits for its finalizers.
    pub deleted: bool,
    /// Whether Weir's finalizer holds it.
    pub held: bool,
    /// Its status.
    pub status: Status,
}

/// The status of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Of a virtual service.
    VirtualService(VirtualServiceStatus),
    /// Of a real server.
    RealServer(RealServerStatus),
    /// Of a director group.
    DirectorGroup(DirectorGroupStatus),
}

/// A node, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its kubelet says that it is ready.
    pub ready: bool,
}

/// What there is to hear of the cluster.
#[derive(Debug)]
pub enum News {
    /// An object is there in this form, or gone; of Weir's own kinds with what else the API has of it.
    Object(Update, Option<Box<Object>>),
    /// What a node's agent says, or that its NodeState is gone.
    NodeState(Arc<str>, Option<Box<NodeStateStatus>>),
    /// A node, or that it is gone.
    Node(Arc<str>, Option<NodeFacts>),
}

/// What a node's agent says.
#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) active_in: BTreeSet<String>,
    pub(super) standby_in: BTreeSet<String>,
    pub(super) generations: Generations,
    /// What it could not do, by the virtual service that lacks it.
    pub(super) failures: BTreeMap<String, String>,
    /// The first thing that it could not do and that may concern any.
    pub(super) failure: Option<String>,
    /// Whether there are more failures than it lists.
    pub(super) more_failures: bool,
    /// What about the node stands in the way.
    pub(super) obstacle: Option<String>,
    /// The RealServers that leave, with how many destinations each still is.
    pub(super) leaving: BTreeMap<NamespacedName, i32>,
}

impl Agent {
    fn new(status: &NodeStateStatus) -> Self {
        let mut agent = Self {
            // One of another version says nothing that could be compared.
            generations: status
                .programmed_virtual_services
                .as_deref()
                .unwrap_or_default()
                .parse()
                .unwrap_or_default(),
            more_failures: usize::try_from(status.failure_count)
                .is_ok_and(|count| count > status.failures.len()),
            obstacle: status.preflight.first().map(|report| report.message.clone()),
            ..Self::default()
        };
        for role in &status.roles {
            let group = role.director_group.clone();
            match role.role {
                DirectorRole::Active => agent.active_in.insert(group),
                DirectorRole::Standby => agent.standby_in.insert(group),
            };
        }
        for failure in &status.failures {
            let message = || failure.message.clone();
            match &failure.virtual_service {
                Some(name) => drop(agent.failures.entry(name.clone()).or_insert_with(message)),
                None => drop(agent.failure.get_or_insert_with(message)),
            }
        }
        let leaving = status.leaving_real_servers.iter().map(|server| {
            let name = NamespacedName {
                namespace: server.namespace.as_str().into(),
                name: server.name.as_str().into(),
            };
            (name, server.destinations)
        });
        agent.leaving.extend(leaving);
        agent
    }

    /// The groups in which it has a part.
    fn groups(&self) -> impl Iterator<Item = &String> {
        self.active_in.iter().chain(&self.standby_in)
    }
}

/// The nodes of a director group.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) active: BTreeSet<Arc<str>>,
    pub(super) standby: BTreeSet<Arc<str>>,
}

/// Everything that the controller knows.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(super) snapshot: Snapshot,
    pub(super) objects: BTreeMap<ObjectRef, Object>,
    pub(super) agents: BTreeMap<Arc<str>, Agent>,
    pub(super) nodes: BTreeMap<Arc<str>, NodeFacts>,
    pub(super) members: BTreeMap<Arc<str>, Members>,
    /// Which virtual services there are in each group.
    generations: BTreeMap<Arc<str>, Generations>,
    counted: HashMap<NamespacedName, (Arc<str>, Generation)>,
    /// What virtual services have to say about their real servers.
    pub(super) about_real_servers: BTreeMap<NamespacedName, BTreeMap<NamespacedName, Finding>>,
}

impl Cluster {
    /// What the API has of an object.
    pub fn object(&self, object: &ObjectRef) -> Option<&Object> {
        self.objects.get(object)
    }

    /// The names of all of Weir's objects.
    pub fn object_names(&self) -> impl Iterator<Item = &ObjectRef> {
        self.objects.keys()
    }

    /// Takes in what this controller has written itself, if it still is the same object.
    pub fn written(&mut self, name: &ObjectRef, uid: &str, write: impl FnOnce(&mut Object)) {
        if let Some(object) = self.objects.get_mut(name).filter(|object| object.uid == uid) {
            write(object);
        }
    }

    /// The nodes that an agent has reported from and that are no nodes of the cluster.
    pub fn agents_without_node(&self) -> impl Iterator<Item = &Arc<str>> {
        self.agents.keys().filter(|name| !self.nodes.contains_key(*name))
    }

    /// Takes in news and says which of Weir's objects it concerns.
    pub fn take(&mut self, news: News) -> BTreeSet<ObjectRef> {
        let mut concerned = BTreeSet::new();
        match news {
            News::Object(update, object) => self.take_object(update, object, &mut concerned),
            News::NodeState(name, status) => {
                let agent = status.map(|status| Agent::new(&status));
                self.take_agent(name, agent, &mut concerned);
            }
            News::Node(name, facts) => self.take_node(name, facts, &mut concerned),
        }
        concerned
    }

    fn take_object(
        &mut self,
        update: Update,
        object: Option<Box<Object>>,
        concerned: &mut BTreeSet<ObjectRef>,
    ) {
        let (Update::Put { object: name, .. } | Update::Delete(name)) = &update;
        let name = name.clone();
        if Kind::OWN.contains(&name.kind) {
            concerned.insert(name.clone());
            match object {
                Some(object) => drop(self.objects.insert(name.clone(), *object)),
                None => drop(self.objects.remove(&name)),
            }
        }
        // Whom it used is known before it is gone, or changes.
        self.concern_used_by(&name, concerned);
        let is_group = name.kind == Kind::DirectorGroup;
        match self.snapshot.update(update) {
            Scope::All => {
                let all = self.snapshot.virtual_services();
                concerned.extend(all.map(|(name, _)| ObjectRef::virtual_service(&name)));
            }
            Scope::Some(names) => {
                concerned.extend(names.iter().map(ObjectRef::virtual_service));
            }
        }
        self.concern_used_by(&name, concerned);
        if is_group {
            self.count_members(&name.name);
        }
        if let (Kind::VirtualService, Some(name)) = (name.kind, name.namespaced_name()) {
            self.count_generation(&name);
        }
    }

    /// Director groups and real servers say how many virtual services use them.
    fn concern_used_by(&self, object: &ObjectRef, concerned: &mut BTreeSet<ObjectRef>) {
        if object.kind != Kind::VirtualService {
            return;
        }
        let Some(name) = object.namespaced_name() else {
            return;
        };
        let Some(service) = self.snapshot.virtual_service(&name) else {
            return;
        };
        concerned.insert(ObjectRef::director_group(service.director_group.clone()));
        let selectors = service
            .backends
            .iter()
            .filter_map(|backend| backend.source.selector());
        for selector in selectors {
            for (server, _) in self.snapshot.select(&name.namespace, selector) {
                concerned.insert(ObjectRef::real_server(&NamespacedName {
                    namespace: name.namespace.clone(),
                    name: server.clone(),
                }));
            }
        }
    }

    fn count_generation(&mut self, name: &NamespacedName) {
        let valid = !self.snapshot.is_invalid(&ObjectRef::virtual_service(name));
        let service = self.snapshot.virtual_service(name).filter(|_| valid);
        let new = service.map(|service| {
            let generation = Generation::new(name, service.generation);
            (service.director_group.clone(), generation)
        });
        let old = match &new {
            Some(new) => self.counted.insert(name.clone(), new.clone()),
            None => self.counted.remove(name),
        };
        if let Some((group, old)) = old {
            self.generations
                .entry(group)
                .or_default()
                .exchange(Some(old), None);
        }
        if let Some((group, new)) = new {
            self.generations
                .entry(group)
                .or_default()
                .exchange(None, Some(new));
        }
    }

    fn count_members(&mut self, group: &Arc<str>) {
        let mut members = Members::default();
        let names: Vec<Arc<str>> = self.nodes.keys().cloned().collect();
        for name in names {
            match self.role(&name, group) {
                Role::Active => drop(members.active.insert(name)),
                Role::Standby => drop(members.standby.insert(name)),
                Role::None => {}
            }
        }
        self.members.insert(group.clone(), members);
    }

    fn role(&self, node: &Arc<str>, group: &str) -> Role {
        let (Some(facts), Some(group)) = (self.nodes.get(node), self.snapshot.director_group(group)) else {
            return Role::None;
        };
        let node = Node {
            name: node.to_string(),
            labels: facts.labels.clone(),
            directing: Directing::InGroups,
        };
        node.role(group)
    }

    fn take_node(&mut self, name: Arc<str>, facts: Option<NodeFacts>, concerned: &mut BTreeSet<ObjectRef>) {
        if self.nodes.get(&name) == facts.as_ref() {
            return;
        }
        match facts {
            Some(facts) => drop(self.nodes.insert(name.clone(), facts)),
            None => drop(self.nodes.remove(&name)),
        }
        let groups: Vec<Arc<str>> = self
            .snapshot
            .director_groups()
            .map(|(name, _)| name.clone())
            .collect();
        for group in groups {
            let role = self.role(&name, &group);
            let members = self.members.entry(group.clone()).or_default();
            let was_member = members.active.remove(&name) | members.standby.remove(&name);
            match role {
                Role::Active => drop(members.active.insert(name.clone())),
                Role::Standby => drop(members.standby.insert(name.clone())),
                Role::None if !was_member => continue,
                Role::None => {}
            }
            self.concern_all_of(&group, concerned);
        }
    }

    fn concern_all_of(&self, group: &Arc<str>, concerned: &mut BTreeSet<ObjectRef>) {
        concerned.insert(ObjectRef::director_group(group.clone()));
        concerned.extend(self.snapshot.of_group(group).map(ObjectRef::virtual_service));
    }

    fn take_agent(&mut self, name: Arc<str>, agent: Option<Agent>, concerned: &mut BTreeSet<ObjectRef>) {
        let before = match agent {
            Some(agent) => self.agents.insert(name.clone(), agent),
            None => self.agents.remove(&name),
        };
        let before = before.unwrap_or_default();
        let nothing = Agent::default();
        let now = self.agents.get(&name).unwrap_or(&nothing);
        let leaving = before.leaving.keys().chain(now.leaving.keys());
        let moved = leaving.filter(|name| before.leaving.get(*name) != now.leaving.get(*name));
        concerned.extend(moved.map(ObjectRef::real_server));
        let of_all = |agent: &Agent| {
            (
                agent.active_in.clone(),
                agent.standby_in.clone(),
                agent.failure.clone(),
                agent.obstacle.clone(),
                agent.more_failures,
            )
        };
        let all = of_all(&before) != of_all(now);
        let groups: BTreeSet<&String> = before.groups().chain(now.groups()).collect();
        for group in groups {
            let group: Arc<str> = group.as_str().into();
            if all {
                self.concern_all_of(&group, concerned);
                continue;
            }
            let is_news = |name: &&NamespacedName| {
                let word = name.to_string();
                !before.generations.agree_about(&now.generations, name)
                    || before.failures.get(&word) != now.failures.get(&word)
            };
            let services = self.snapshot.of_group(&group).filter(is_news);
            concerned.extend(services.map(ObjectRef::virtual_service));
        }
    }

    /// Whether a node's agent has everything for a virtual service, as far as both know of it in the same generation.
    pub(super) fn has_everything(&self, node: &str, name: &NamespacedName) -> bool {
        let mut expected = Generations::default();
        for (group, members) in &self.members {
            if members.active.contains(node)
                && let Some(generations) = self.generations.get(group)
            {
                expected.add(generations);
            }
        }
        self.agents
            .get(node)
            .is_some_and(|agent| agent.generations.agree_about(&expected, name))
    }

    /// Takes in what virtual services have to say about their real servers, and says about which there is news.
    pub(super) fn hear_about(
        &mut self,
        service: &NamespacedName,
        findings: Vec<Finding>,
    ) -> BTreeSet<ObjectRef> {
        let mut news = BTreeSet::new();
        let mut about: BTreeMap<NamespacedName, Finding> = BTreeMap::new();
        for finding in findings {
            if let (Kind::RealServer, Some(name)) = (finding.object.kind, finding.object.namespaced_name()) {
                about.entry(name).or_insert(finding);
            }
        }
        self.about_real_servers.retain(|name, by_service| {
            if !about.contains_key(name) && by_service.remove(service).is_some() {
                news.insert(ObjectRef::real_server(name));
            }
            !by_service.is_empty()
        });
        for (name, finding) in about {
            let by_service = self.about_real_servers.entry(name.clone()).or_default();
            if by_service.get(service) != Some(&finding) {
                by_service.insert(service.clone(), finding);
                news.insert(ObjectRef::real_server(&name));
            }
        }
        news
    }
}
