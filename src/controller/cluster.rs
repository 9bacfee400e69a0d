//! What the controller knows of the cluster, and which objects a piece of news concerns. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};
use std::sync::Arc;

use crate::api::{
    DirectorGroupStatus, DirectorRole, NodeStateStatus, RealServerStatus, VirtualServiceStatus,
};
use crate::catalog::{
    Finding, Generation, Generations, Kind, MarkMask, NamespacedName, ObjectRef, Scope, Update,
};
use crate::plan::{Directing, Node, Role, World};

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
    /// Its name and labels.
    pub node: Node,
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
    pub(super) failures: BTreeMap<NamespacedName, String>,
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
            match failure.virtual_service.as_deref().and_then(namespaced) {
                Some(name) => drop(agent.failures.entry(name).or_insert_with(message)),
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

/// The name that an agent writes as namespace/name.
fn namespaced(text: &str) -> Option<NamespacedName> {
    let (namespace, name) = text.split_once('/')?;
    Some(NamespacedName {
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// The nodes of a director group.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) active: BTreeSet<Arc<str>>,
    pub(super) standby: BTreeSet<Arc<str>>,
}

/// Everything that the controller knows.
#[derive(Debug)]
pub struct Cluster {
    /// All objects, as whichever node is active sees them: what follows from the objects alone.
    pub(super) world: World,
    pub(super) objects: BTreeMap<ObjectRef, Object>,
    pub(super) agents: BTreeMap<Arc<str>, Agent>,
    pub(super) nodes: BTreeMap<Arc<str>, NodeFacts>,
    /// The nodes that an agent has reported from and that are no nodes of the cluster.
    strays: BTreeSet<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Members>,
    /// The groups in which each node is active.
    directs: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Which virtual services there are in each group.
    generations: BTreeMap<Arc<str>, Generations>,
    counted: HashMap<NamespacedName, (Arc<str>, Generation)>,
    /// What virtual services have to say about their real servers.
    pub(super) about_real_servers: BTreeMap<NamespacedName, BTreeMap<NamespacedName, Finding>>,
    /// About which of them each has something to say.
    has_said: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
}

impl Default for Cluster {
    fn default() -> Self {
        let whichever = Node {
            directing: Directing::Everywhere,
            ..Node::default()
        };
        Self {
            world: World::new(whichever, MarkMask::default()),
            objects: BTreeMap::new(),
            agents: BTreeMap::new(),
            nodes: BTreeMap::new(),
            strays: BTreeSet::new(),
            members: BTreeMap::new(),
            directs: BTreeMap::new(),
            generations: BTreeMap::new(),
            counted: HashMap::new(),
            about_real_servers: BTreeMap::new(),
            has_said: HashMap::new(),
        }
    }
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
    pub fn agents_without_node(&self) -> &BTreeSet<Arc<str>> {
        &self.strays
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
        let service = name
            .namespaced_name()
            .filter(|_| name.kind == Kind::VirtualService);
        // Whom it used is known before it is gone, or changes.
        let used = service
            .iter()
            .flat_map(|service| self.used_by(service))
            .collect::<Vec<_>>();
        let scope = self.world.catalog.update(update);
        if name.kind == Kind::DirectorGroup {
            self.count_members(&name.name);
        }
        // Most news of an object are a status, often one that was written here: they concern nobody else.
        if scope.is_empty() {
            return;
        }
        if let Some(service) = &service {
            concerned.extend(used);
            concerned.extend(self.used_by(service));
            self.count_generation(service);
            if self.world.catalog.virtual_service(service).is_none() {
                concerned.extend(self.hear_about(service, Vec::new()));
            }
        }
        match scope {
            Scope::Every => {
                let all = self.world.catalog.virtual_services();
                concerned.extend(all.map(|(name, _)| ObjectRef::virtual_service(&name)));
            }
            Scope::These(names) => concerned.extend(names.iter().map(ObjectRef::virtual_service)),
        }
    }

    /// Director groups and real servers say how many virtual services use them.
    fn used_by(&self, name: &NamespacedName) -> Vec<ObjectRef> {
        let Some(service) = self.world.catalog.virtual_service(name) else {
            return Vec::new();
        };
        let selectors = service
            .backends
            .iter()
            .filter_map(|backend| backend.source.selector());
        let servers = selectors.flat_map(|selector| self.world.catalog.select(&name.namespace, selector));
        let servers = servers.map(|(server, _)| {
            ObjectRef::real_server(&NamespacedName {
                namespace: name.namespace.clone(),
                name: server.clone(),
            })
        });
        let group = ObjectRef::director_group(service.director_group.clone());
        std::iter::once(group).chain(servers).collect()
    }

    fn count_generation(&mut self, name: &NamespacedName) {
        let valid = !self.world.catalog.is_invalid(&ObjectRef::virtual_service(name));
        let service = self.world.catalog.virtual_service(name).filter(|_| valid);
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
        let nodes: Vec<Arc<str>> = self.nodes.keys().cloned().collect();
        for node in nodes {
            self.assign(&node, group);
        }
    }

    /// Puts a node where it belongs in a group, and says what part it had and what it has.
    fn assign(&mut self, node: &Arc<str>, group: &Arc<str>) -> [Role; 2] {
        let role = self.role(node, group);
        let members = self.members.entry(group.clone()).or_default();
        let before = match (members.active.remove(node), members.standby.remove(node)) {
            (true, _) => Role::Active,
            (false, true) => Role::Standby,
            (false, false) => Role::None,
        };
        match role {
            Role::Active => drop(members.active.insert(node.clone())),
            Role::Standby => drop(members.standby.insert(node.clone())),
            Role::None => {}
        }
        if role == Role::Active {
            self.directs
                .entry(node.clone())
                .or_default()
                .insert(group.clone());
        } else if let Entry::Occupied(mut groups) = self.directs.entry(node.clone()) {
            groups.get_mut().remove(group);
            if groups.get().is_empty() {
                groups.remove();
            }
        }
        [before, role]
    }

    fn role(&self, node: &Arc<str>, group: &str) -> Role {
        match (self.nodes.get(node), self.world.catalog.director_group(group)) {
            (Some(facts), Some(group)) => facts.node.role(group),
            _ => Role::None,
        }
    }

    fn take_node(&mut self, name: Arc<str>, facts: Option<NodeFacts>, concerned: &mut BTreeSet<ObjectRef>) {
        if self.nodes.get(&name) == facts.as_ref() {
            return;
        }
        match facts {
            Some(facts) => drop(self.nodes.insert(name.clone(), facts)),
            None => drop(self.nodes.remove(&name)),
        }
        self.look_for_stray(&name);
        let groups: Vec<Arc<str>> = self
            .world
            .catalog
            .director_groups()
            .map(|(name, _)| name.clone())
            .collect();
        for group in groups {
            let roles = self.assign(&name, &group);
            if roles.contains(&Role::Active) {
                self.concern_all_of(&group, concerned);
            } else if roles.contains(&Role::Standby) {
                concerned.insert(ObjectRef::director_group(group));
            }
        }
    }

    fn look_for_stray(&mut self, name: &Arc<str>) {
        if self.agents.contains_key(name) && !self.nodes.contains_key(name) {
            self.strays.insert(name.clone());
        } else {
            self.strays.remove(name);
        }
    }

    fn concern_all_of(&self, group: &Arc<str>, concerned: &mut BTreeSet<ObjectRef>) {
        concerned.insert(ObjectRef::director_group(group.clone()));
        concerned.extend(self.world.catalog.of_group(group).map(ObjectRef::virtual_service));
    }

    fn take_agent(&mut self, name: Arc<str>, agent: Option<Agent>, concerned: &mut BTreeSet<ObjectRef>) {
        let before = match agent {
            Some(agent) => self.agents.insert(name.clone(), agent),
            None => self.agents.remove(&name),
        };
        self.look_for_stray(&name);
        let before = before.unwrap_or_default();
        let nothing = Agent::default();
        let now = self.agents.get(&name).unwrap_or(&nothing);
        concerned.extend(changed(&before.leaving, &now.leaving).map(ObjectRef::real_server));
        concerned.extend(changed(&before.failures, &now.failures).map(ObjectRef::virtual_service));
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
        if !all && before.generations == now.generations {
            return;
        }
        let groups: BTreeSet<&String> = before.groups().chain(now.groups()).collect();
        for group in groups {
            let group: Arc<str> = group.as_str().into();
            if all {
                self.concern_all_of(&group, concerned);
                continue;
            }
            let is_news = |name: &&NamespacedName| !before.generations.agree_about(&now.generations, name);
            let services = self.world.catalog.of_group(&group).filter(is_news);
            concerned.extend(services.map(ObjectRef::virtual_service));
        }
    }

    /// Whether a node's agent has everything for a virtual service, as far as both know of it in the same generation.
    pub(super) fn has_everything(&self, node: &str, name: &NamespacedName) -> bool {
        let mut expected = Generations::default();
        for group in self.directs.get(node).into_iter().flatten() {
            if let Some(generations) = self.generations.get(group) {
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
        let mut about: BTreeMap<NamespacedName, Finding> = BTreeMap::new();
        for finding in findings {
            if let (Kind::RealServer, Some(name)) = (finding.object.kind, finding.object.namespaced_name()) {
                about.entry(name).or_insert(finding);
            }
        }
        let before = match about.is_empty() {
            true => self.has_said.remove(service),
            false => self
                .has_said
                .insert(service.clone(), about.keys().cloned().collect()),
        };
        let mut news = BTreeSet::new();
        for name in before
            .into_iter()
            .flatten()
            .filter(|name| !about.contains_key(name))
        {
            if let Entry::Occupied(mut by_service) = self.about_real_servers.entry(name.clone()) {
                by_service.get_mut().remove(service);
                if by_service.get().is_empty() {
                    by_service.remove();
                }
            }
            news.insert(ObjectRef::real_server(&name));
        }
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

/// The keys of which one map says something else than the other.
fn changed<'a, K: Ord, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(*key) != other.get(*key))
}

#[cfg(test)]
mod tests;
