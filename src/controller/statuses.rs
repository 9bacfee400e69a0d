//! What the controller knows → the status that an object should have. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::{
    Condition, ConditionStatus, DirectorGroupStatus, RealServerState, RealServerStatus, VirtualServiceStatus,
};
use crate::catalog::validated::{
    AdminState, Listen, Ports, ValidatedDirectorGroup, ValidatedFailover, ValidatedVirtualService,
};
use crate::catalog::{Finding, Kind, NamespacedName, ObjectRef, Reason, Scope};
use crate::ipvs::{DestinationKey, Protocol, Weight};
use crate::plan::{ServicePlan, plan_service};

use super::cluster::{Agent, Cluster, Members, Object, Status};
use super::conditions::{Aspect, Verdict, Why, conclude, conditions};

/// The status of an object, and what was found on the way about the objects it uses.
#[derive(Debug)]
pub struct Judgement {
    /// Its status.
    pub status: Status,
    /// What is to be said about the real servers of a virtual service.
    pub findings: Vec<Finding>,
}

impl Cluster {
    /// The status that one of Weir's objects should have; nothing for one that is not there. `now` is a time of RFC 3339
    /// for conditions that change.
    pub fn judge(&self, name: &ObjectRef, now: &str) -> Option<Judgement> {
        let object = self.object(name)?;
        match (name.kind, name.namespaced_name(), &object.status) {
            (Kind::VirtualService, Some(name), Status::VirtualService(before)) => {
                let (status, findings) = self.judge_virtual_service(&name, object, before, now);
                Some(Judgement {
                    status: Status::VirtualService(status),
                    findings,
                })
            }
            (Kind::RealServer, Some(name), Status::RealServer(before)) => Some(Judgement {
                status: Status::RealServer(self.judge_real_server(&name, object, before, now)),
                findings: Vec::new(),
            }),
            (Kind::DirectorGroup, None, Status::DirectorGroup(before)) => Some(Judgement {
                status: Status::DirectorGroup(self.judge_director_group(&name.name, object, before, now)),
                findings: Vec::new(),
            }),
            _ => None,
        }
    }

    fn judge_virtual_service(
        &self,
        name: &NamespacedName,
        object: &Object,
        before: &VirtualServiceStatus,
        now: &str,
    ) -> (VirtualServiceStatus, Vec<Finding>) {
        let service = self.world.catalog.virtual_service(name);
        let plan = service.map(|service| plan_service(&self.world, name, service));
        let findings = plan
            .as_ref()
            .map(|plan| plan.findings.clone())
            .unwrap_or_default();
        let reference = ObjectRef::virtual_service(name);
        let own: Vec<&Finding> = findings
            .iter()
            .filter(|finding| finding.object == reference)
            .collect();
        let nobody = Members::default();
        let members = service.and_then(|service| self.members.get(&service.director_group));
        let members = members.unwrap_or(&nobody);
        let active_node = summary(&members.active);
        let accepted = self.accepted(&reference, &own);
        let (usable, all) = count_backends(plan.as_ref(), service);
        // Whoever reads that is to see the cause, and nothing that only follows from it.
        let nothing = plan.as_ref().is_none_or(ServicePlan::has_no_entries);
        let pending = |aspect| Verdict::fails(aspect, Why::Pending, "not programmed: see condition Accepted");
        let programmed = if nothing && service.is_some() && !accepted.holds {
            pending(Aspect::Programmed)
        } else {
            self.programmed(name, object, service, members, before)
        };
        let backends = if nothing {
            pending(Aspect::BackendsHealthy)
        } else {
            backends(usable, all, &own)
        };
        let verdicts = conclude(vec![
            accepted,
            resolved_refs(&own),
            addresses(service),
            programmed,
            backends,
            self.degraded(members),
        ]);
        let status = VirtualServiceStatus {
            observed_generation: Some(object.generation),
            address_summary: service.and_then(address_summary),
            port_summary: service.and_then(port_summary),
            active_node,
            backend_summary: service.map(|_| format!("{usable}/{all}")),
            conditions: conditions(&verdicts, object.generation, &before.conditions, now),
        };
        (status, findings)
    }

    /// Whether the object means something, and nobody else has what it claims.
    fn accepted(&self, reference: &ObjectRef, own: &[&Finding]) -> Verdict {
        let aspect = Aspect::Accepted;
        let remarks = self.world.catalog.remarks(reference);
        let invalid = remarks.iter().filter(|remark| remark.reason == Reason::Invalid);
        let invalid: Vec<String> = invalid
            .map(|remark| said(&remark.field, &remark.message))
            .collect();
        if !invalid.is_empty() {
            return Verdict::fails(aspect, Why::InvalidSpec, first_of(&invalid));
        }
        let conflicts = own.iter().filter(|finding| finding.reason == Reason::Conflict);
        let conflicts: Vec<String> = conflicts.map(|finding| finding_words(finding)).collect();
        if !conflicts.is_empty() {
            return Verdict::fails(aspect, Why::PortConflict, first_of(&conflicts));
        }
        let ineffective: Vec<String> = remarks
            .iter()
            .map(|remark| said(&remark.field, &remark.message))
            .collect();
        let message = if ineffective.is_empty() {
            "the object is valid, and nobody else has what it claims".to_owned()
        } else {
            first_of(&ineffective)
        };
        Verdict::holds(aspect, Why::Accepted, message)
    }

    fn programmed(
        &self,
        name: &NamespacedName,
        object: &Object,
        service: Option<&ValidatedVirtualService>,
        members: &Members,
        before: &VirtualServiceStatus,
    ) -> Verdict {
        let aspect = Aspect::Programmed;
        let Some(service) = service else {
            return Verdict::fails(
                aspect,
                Why::Pending,
                "no valid version of this object has been seen yet",
            );
        };
        if members.active.is_empty() {
            return Verdict::fails(aspect, Why::NoDirector, self.why_nobody(&service.director_group));
        }
        let was_so = before.observed_generation == Some(object.generation)
            && before.active_node == summary(&members.active)
            && holds(&before.conditions, Aspect::Programmed);
        for node in &members.active {
            let Some(agent) = self.agents.get(node) else {
                let message = format!(
                    "no agent of {node} has reported yet: look whether its pod runs there (kubectl get pods -A -o wide)"
                );
                return Verdict::fails(aspect, Why::Pending, message);
            };
            if self.has_everything(node, name) {
                continue;
            }
            if let Some(failure) = failure_of(agent, name) {
                return Verdict::fails(aspect, Why::NetlinkError, format!("{node}: {failure}"));
            }
            // Others on their way do not make this one uncertain.
            if !was_so {
                let message = format!("{node} has not programmed generation {} yet", object.generation);
                return Verdict::fails(aspect, Why::Pending, message);
            }
        }
        let nodes: Vec<&str> = members.active.iter().map(|node| &**node).collect();
        let message = format!("everything is in force on {}", nodes.join(", "));
        Verdict::holds(aspect, Why::Programmed, message)
    }

    /// Why a group has no active director, and what to do.
    fn why_nobody(&self, group: &str) -> String {
        let Some(form) = self.world.catalog.director_group(group) else {
            return format!("there is no valid DirectorGroup {group}: create or correct it, or name another");
        };
        match &form.failover {
            ValidatedFailover::Static(active) if !self.nodes.contains_key(active.as_ref()) => format!(
                "the active node of DirectorGroup {group} is {active}, and there is no such node: name another in \
                 spec.failover.static.activeNode"
            ),
            ValidatedFailover::Static(active) => format!(
                "the active node of DirectorGroup {group} is {active}, whose labels its nodeSelector does not match: label the \
                 node, or correct the selector"
            ),
            ValidatedFailover::Routed => {
                format!(
                    "no node matches the nodeSelector of DirectorGroup {group}: label one, or correct the selector"
                )
            }
            ValidatedFailover::NotSupported => {
                format!("the failover of DirectorGroup {group} is not supported yet: use Static or Routed")
            }
        }
    }

    fn degraded(&self, members: &Members) -> Verdict {
        let aspect = Aspect::Degraded;
        for node in &members.active {
            if self.nodes.get(node).is_some_and(|facts| !facts.ready) {
                let message = format!(
                    "node {node}, which is active director, is not ready: kubectl describe node {node}"
                );
                return Verdict::holds(aspect, Why::DirectorNotReady, message);
            }
            let obstacle = self.agents.get(node).and_then(|agent| agent.obstacle.as_ref());
            if let Some(obstacle) = obstacle {
                return Verdict::holds(aspect, Why::PreflightFailed, format!("{node}: {obstacle}"));
            }
        }
        Verdict::fails(aspect, Why::AsExpected, "no degradation detected")
    }

    fn judge_real_server(
        &self,
        name: &NamespacedName,
        object: &Object,
        before: &RealServerStatus,
        now: &str,
    ) -> RealServerStatus {
        let reference = ObjectRef::real_server(name);
        let about = self.about_real_servers.get(name).into_iter().flatten().next();
        let accepted = match about {
            Some((_, finding)) => Verdict::fails(Aspect::Accepted, Why::Unfit, finding_words(finding)),
            None => self.accepted(&reference, &[]),
        };
        let verdicts = conclude(vec![accepted]);
        let users = match self.world.catalog.selecting(name) {
            Scope::These(names) => names.len(),
            Scope::Every => 0,
        };
        RealServerStatus {
            observed_generation: Some(object.generation),
            state: self
                .world
                .catalog
                .real_server(name)
                .map(|server| match server.admin_state {
                    AdminState::Enabled => RealServerState::Enabled,
                    AdminState::Disabled => RealServerState::Disabled,
                    AdminState::Draining | AdminState::Deleted if self.has_left(name) => {
                        RealServerState::Drained
                    }
                    AdminState::Draining | AdminState::Deleted => RealServerState::Draining,
                }),
            virtual_services: Some(count(users)),
            conditions: conditions(&verdicts, object.generation, &before.conditions, now),
        }
    }

    /// Whether every director of the virtual services that select a leaving real server says that it has nothing of it
    /// any more. One that has not heard yet that it leaves says nothing.
    pub fn has_left(&self, name: &NamespacedName) -> bool {
        let Scope::These(services) = self.world.catalog.selecting(name) else {
            return false;
        };
        let groups: BTreeSet<&Arc<str>> = services
            .iter()
            .filter_map(|service| Some(&self.world.catalog.virtual_service(service)?.director_group))
            .collect();
        groups.into_iter().all(|group| {
            let members = self.members.get(group);
            let nodes = members
                .into_iter()
                .flat_map(|members| members.active.iter().chain(&members.standby));
            let said = nodes.map(|node| Some(*self.agents.get(node)?.leaving.get(name)?));
            // Nobody who could have connections is no reason to believe that there are none: agents may be away.
            let mut said = said.peekable();
            said.peek().is_some() && said.all(|destinations| destinations == Some(0))
        })
    }

    fn judge_director_group(
        &self,
        name: &Arc<str>,
        object: &Object,
        before: &DirectorGroupStatus,
        now: &str,
    ) -> DirectorGroupStatus {
        let nobody = Members::default();
        let members = self.members.get(name).unwrap_or(&nobody);
        let reference = ObjectRef::director_group(name.clone());
        let form = self.world.catalog.director_group(name);
        let directors = if members.active.is_empty() {
            Verdict::fails(Aspect::Programmed, Why::NoDirector, self.why_nobody(name))
        } else {
            let silent = members
                .active
                .iter()
                .find(|node| !self.agents.contains_key(*node));
            match silent {
                Some(node) => Verdict::fails(
                    Aspect::Programmed,
                    Why::Pending,
                    format!("no agent of {node} has reported yet"),
                ),
                None => Verdict::holds(
                    Aspect::Programmed,
                    Why::Programmed,
                    "the active directors have reported",
                ),
            }
        };
        let degraded = match self.degraded(members) {
            verdict if verdict.holds => verdict,
            verdict => backup(form, members).unwrap_or(verdict),
        };
        let verdicts = conclude(vec![self.accepted(&reference, &[]), directors, degraded]);
        DirectorGroupStatus {
            observed_generation: Some(object.generation),
            nodes: Some(count(members.active.len() + members.standby.len())),
            active_node: summary(&members.active),
            virtual_services: Some(count(self.world.catalog.of_group(name).count())),
            conditions: conditions(&verdicts, object.generation, &before.conditions, now),
        }
    }
}

/// Who is to take over, where somebody is meant to.
fn backup(form: Option<&ValidatedDirectorGroup>, members: &Members) -> Option<Verdict> {
    let alone = members.active.len() + members.standby.len() == 1;
    let synchronized = form.is_some_and(|form| form.connection_sync.is_some());
    (alone && synchronized).then(|| {
        Verdict::holds(
            Aspect::Degraded,
            Why::BackupMissing,
            "connections are passed on, but there is no second node to take them: label one to match the nodeSelector",
        )
    })
}

/// What keeps an agent from having everything for a virtual service.
fn failure_of<'a>(agent: &'a Agent, name: &NamespacedName) -> Option<&'a str> {
    let own = agent.failures.get(name);
    let unlisted = "there are more failures than its NodeState lists; its log has them all";
    own.or(agent.failure.as_ref())
        .map(String::as_str)
        .or(agent.more_failures.then_some(unlisted))
}

fn resolved_refs(own: &[&Finding]) -> Verdict {
    let aspect = Aspect::ResolvedRefs;
    let unresolved = own.iter().find_map(|finding| {
        if !finding.field.starts_with("spec.backends") {
            return None;
        }
        let why = match finding.reason {
            Reason::NotFound => Why::BackendNotFound,
            Reason::NotPermitted => Why::RefNotPermitted,
            Reason::Mismatch | Reason::NotSupported => Why::UnsupportedKind,
            Reason::Invalid | Reason::Conflict | Reason::Empty | Reason::Notice => return None,
        };
        Some(Verdict::fails(aspect, why, finding_words(finding)))
    });
    unresolved.unwrap_or_else(|| Verdict::holds(aspect, Why::ResolvedRefs, "every backend is there"))
}

fn addresses(service: Option<&ValidatedVirtualService>) -> Verdict {
    let aspect = Aspect::AddressAssigned;
    let message = match service.map(|service| &service.listen) {
        Some(Listen::Addresses { addresses, .. }) if addresses.is_empty() => {
            let message = "addresses from a pool are not supported yet: write spec.addresses";
            return Verdict::fails(aspect, Why::PoolNotFound, message);
        }
        Some(Listen::Mark { .. }) => "packets are taken by their mark",
        Some(Listen::Addresses { .. }) | None => "the VIPs are those of spec.addresses",
    };
    Verdict::holds(aspect, Why::Assigned, message)
}

/// How many destinations take new connections, of how many; the sorry server is none of them.
fn count_backends(plan: Option<&ServicePlan>, service: Option<&ValidatedVirtualService>) -> (usize, usize) {
    let sorry = service
        .and_then(|service| service.fallback)
        .map(|fallback| fallback.address);
    let mut usable = BTreeSet::new();
    let mut all: BTreeSet<DestinationKey> = BTreeSet::new();
    for (_, entry) in plan.into_iter().flat_map(|plan| &plan.entries) {
        for (key, destination) in &entry.destinations {
            if Some(key.address) == sorry {
                continue;
            }
            all.insert(*key);
            if destination.weight > Weight::QUIESCED {
                usable.insert(*key);
            }
        }
    }
    (usable.len(), all.len())
}

fn backends(usable: usize, all: usize, own: &[&Finding]) -> Verdict {
    let aspect = Aspect::BackendsHealthy;
    let message = format!("{usable} of {all} destinations take new connections");
    if all == 0 {
        let empty = own
            .iter()
            .find(|finding| finding.field.starts_with("spec.backends"));
        let message = empty.map_or_else(
            || "there are no destinations".to_owned(),
            |finding| finding_words(finding),
        );
        Verdict::fails(aspect, Why::NoBackends, message)
    } else if usable == 0 {
        Verdict::fails(aspect, Why::NoneHealthy, message)
    } else if usable < all {
        Verdict::fails(aspect, Why::SomeUnhealthy, message)
    } else {
        Verdict::holds(aspect, Why::AllHealthy, message)
    }
}

fn holds(conditions: &[Condition], aspect: Aspect) -> bool {
    conditions
        .iter()
        .any(|condition| condition.r#type == aspect.word() && condition.status == ConditionStatus::True)
}

fn address_summary(service: &ValidatedVirtualService) -> Option<String> {
    let (Listen::Addresses { addresses, .. } | Listen::Mark { addresses, .. }) = &service.listen;
    let first = addresses.first()?;
    Some(with_more(&first.to_string(), addresses.len()))
}

fn port_summary(service: &ValidatedVirtualService) -> Option<String> {
    match &service.listen {
        Listen::Mark { mark, .. } => Some(format!("mark {mark}")),
        Listen::Addresses { ports, .. } => {
            let words: Vec<String> = ports.iter().map(port_words).collect();
            Some(words.join(","))
        }
    }
}

/// `80/TCP`, `5000-5010/UDP`, `*/TCP`.
fn port_words(ports: &Ports) -> String {
    let Ports {
        protocol,
        first,
        last,
    } = *ports;
    let protocol = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match (first, last) {
        (0, _) => format!("*/{protocol}"),
        (first, last) if first == last => format!("{first}/{protocol}"),
        (first, last) => format!("{first}-{last}/{protocol}"),
    }
}

/// The first node, and how many more there are.
fn summary(nodes: &BTreeSet<Arc<str>>) -> Option<String> {
    Some(with_more(nodes.first()?, nodes.len()))
}

fn with_more(first: &str, all: usize) -> String {
    match all {
        0 | 1 => first.to_owned(),
        all => format!("{first} +{}", all - 1),
    }
}

fn finding_words(finding: &Finding) -> String {
    said(&finding.field, &finding.message)
}

fn said(field: &str, message: &str) -> String {
    if field.is_empty() {
        message.to_owned()
    } else {
        format!("{field}: {message}")
    }
}

fn first_of(all: &[String]) -> String {
    match all {
        [] => String::new(),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} (and {} more)", more.len()),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
