//! The node itself: links and addresses by route netlink, rules by nf_tables, settings by files, announcements by a
//! packet socket.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use neli::ToBytes;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::Rtm;
use neli::consts::socket::NlFamily;
use rustix::thread::{CapabilitySet, capabilities};

use crate::netlink::{Batch, Connection, Errno, NetlinkError, PacketSocket, Refused};
use crate::nft::{KernelRuleset, NftError, Transaction};

use super::announcement;
use super::change::{HostChange, HostError, HostFailure, HostStore, take_in_order};
use super::fou::{FouError, GuePorts};
use super::journal::{Journal, Record};
use super::network::{Link, Network};
use super::preflight::Inspection;
use super::rtnetlink;
use super::state::{BoundAddress, ChangedSysctl, Current, GuePort, LinkKind};
use super::sysctl::Sysctls;

/// Make it, and refuse if it is there.
const CREATE: NlmF = NlmF::CREATE.union(NlmF::EXCL);
/// How often a link is tried to be made. Kernel 6.1 answers the second of two programs that ask for the first link of a
/// kind at once that it knows none such, while it still loads the module for the first.
const TRIES: usize = 5;
/// A dump that something changed under is begun anew, this often.
const LOOKS: usize = 5;

/// The links of Weir's own by name.
type OwnLinks = BTreeMap<Box<str>, LinkKind>;

/// The node of the network namespace in which this was opened.
#[derive(Debug)]
pub struct KernelHost {
    route: Connection,
    /// Absent until nf_tables is there.
    rules: Option<KernelRuleset>,
    /// Whether nf_tables knows family `arp`; a kernel does not come to know it later.
    arp_rules: Option<bool>,
    /// Absent until the first port is wanted.
    gue: Option<GuePorts>,
    packets: Option<PacketSocket>,
    sysctls: Sysctls,
    journal: Journal,
}

impl KernelHost {
    /// Opens the node of the calling thread's network namespace. Settings are files below `sysctl_root`, normally
    /// `/proc/sys/net`; what they were before is recorded in `state_dir`.
    ///
    /// # Errors
    ///
    /// There is no route netlink, or the record is there and cannot be read.
    pub fn open(sysctl_root: &Path, state_dir: &Path) -> Result<Self, HostError> {
        Ok(Self {
            route: Connection::open(NlFamily::Route).map_err(during("open route netlink"))?,
            rules: None,
            arp_rules: None,
            gue: None,
            packets: None,
            sysctls: Sysctls::new(sysctl_root),
            journal: Journal::open(state_dir)
                .map_err(during("read the record of what Weir changed on this node"))?,
        })
    }

    /// The links with their addresses, the routes, and which of the links are Weir's.
    fn network(&mut self) -> Result<(Network, OwnLinks), HostError> {
        let (mut links, own) = self.links()?;
        let mut addresses = Vec::new();
        self.dump(
            "list the addresses",
            Rtm::Getaddr,
            &rtnetlink::link(0),
            |payload| addresses.extend(rtnetlink::read_address(payload)),
        )?;
        for (index, address) in addresses {
            // A link that came in between has none of interest.
            if let Some(link) = links.get_mut(&index) {
                link.addresses.push(address);
            }
        }
        let mut routes = Vec::new();
        for ipv6 in [false, true] {
            self.dump(
                "list the routes",
                Rtm::Getroute,
                &rtnetlink::route_question(ipv6),
                |payload| routes.extend(rtnetlink::read_route(payload)),
            )?;
        }
        let links = links.into_values().collect();
        Ok((Network::new(links, routes), own))
    }

    /// The links by their numbers, without their addresses, and which of them are Weir's: all that a step needs to know.
    fn links(&mut self) -> Result<(BTreeMap<u32, Link>, OwnLinks), HostError> {
        let mut links = BTreeMap::new();
        let mut own = BTreeMap::new();
        self.dump("list the links", Rtm::Getlink, &rtnetlink::link(0), |payload| {
            if let Some((link, kind)) = rtnetlink::read_link(payload) {
                own.extend(kind.map(|kind| (link.name.clone(), kind)));
                links.insert(link.index, link);
            }
        })?;
        Ok((links, own))
    }

    fn dump(
        &mut self,
        act: &str,
        kind: Rtm,
        question: &impl ToBytes,
        mut on_reply: impl FnMut(&[u8]),
    ) -> Result<(), HostError> {
        let mut look = 1;
        loop {
            // What is told twice replaces itself or does no harm: links by number, addresses and routes as sets.
            match self
                .route
                .request(kind, NlmF::DUMP, question, |_, payload| on_reply(payload))
            {
                Err(NetlinkError::DumpInterrupted) if look < LOOKS => look += 1,
                result => return result.map_err(during(act)),
            }
        }
    }

    fn kernel_rules(&mut self) -> Result<Option<&mut KernelRuleset>, NftError> {
        if self.rules.is_none() {
            match KernelRuleset::open() {
                Ok(rules) => self.rules = Some(rules),
                Err(NftError::NoNfTables) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(self.rules.as_mut())
    }

    fn gue_ports(&mut self) -> Result<&mut GuePorts, FouError> {
        match &mut self.gue {
            Some(ports) => Ok(ports),
            gue => Ok(gue.insert(GuePorts::open()?)),
        }
    }

    fn set_sysctl(&mut self, name: &str, value: &str) -> Result<(), Message> {
        let is = self.sysctls.read(name).map_err(told)?;
        let before = is.ok_or_else(|| told(super::sysctl::SysctlError::Missing(name.into())))?;
        let remember = |record: &mut Record| {
            let changed = record.sysctls.entry(name.into()).or_insert(ChangedSysctl {
                before,
                set: value.into(),
            });
            changed.set = value.into();
        };
        self.journal.write(remember).map_err(not_recorded)?;
        self.sysctls.write(name, value).map_err(told)
    }

    fn restore_sysctl(&mut self, name: &str) -> Result<(), Message> {
        if let Some(ChangedSysctl { before, set }) = self.journal.record().sysctls.get(name).cloned() {
            let is = self.sysctls.read(name).map_err(told)?;
            if is.is_some_and(|is| is.split_whitespace().eq(set.split_whitespace())) {
                self.sysctls.write(name, &before).map_err(told)?;
            }
        }
        let forget = |record: &mut Record| drop(record.sysctls.remove(name));
        self.journal.write(forget).map_err(not_recorded)
    }

    /// Makes a link and marks it as Weir's. A crash in between leaves one without the mark, which the journal tells from
    /// somebody else's of that name.
    fn add_link(&mut self, name: &str, kind: LinkKind) -> Result<(), Message> {
        let was_begun = self.journal.record().links.contains(name);
        let begin = |record: &mut Record| {
            record.links.insert(name.into());
        };
        self.journal.write(begin).map_err(not_recorded)?;
        let made = self.make_link(name, kind, was_begun).and_then(|()| {
            self.change(Rtm::Newlink, NlmF::empty(), &rtnetlink::alias_and_up(name))
                .map_err(told)
        });
        let end = |record: &mut Record| {
            record.links.remove(name);
        };
        self.journal.write(end).map_err(not_recorded)?;
        made
    }

    fn make_link(&mut self, name: &str, kind: LinkKind, was_begun: bool) -> Result<(), Message> {
        let mut attempt = 1;
        loop {
            let Err(error) = self.change(Rtm::Newlink, CREATE, &rtnetlink::new_link(name, kind)) else {
                return Ok(());
            };
            match error.refusal() {
                Some(Errno::OPNOTSUPP) if attempt < TRIES => attempt += 1,
                Some(Errno::EXIST) if was_begun => return Ok(()),
                _ => return Err(why_no_link(error, kind)),
            }
        }
    }

    fn delete_link(&mut self, name: &str) -> Result<(), Message> {
        let (links, own) = self.links().map_err(told)?;
        let Some(link) = named(&links, name).filter(|_| own.contains_key(name)) else {
            return Ok(());
        };
        match self.change(Rtm::Dellink, NlmF::empty(), &rtnetlink::link(link.index)) {
            Err(error) if error.refusal() == Some(Errno::NODEV) => Ok(()),
            result => result.map_err(told),
        }
    }

    fn change(&mut self, kind: Rtm, flags: NlmF, body: &impl ToBytes) -> Result<(), NetlinkError> {
        self.route.request(kind, flags, body, |_, _| {})
    }

    /// Adds or deletes addresses, all in one go. What is so already is no failure: somebody else's address is as good
    /// as Weir's, and one that is gone is gone.
    fn bring_addresses(
        &mut self,
        bound: &[&BoundAddress],
        add: bool,
    ) -> Result<Vec<(usize, Message)>, Message> {
        let (links, _) = self.links().map_err(told)?;
        let mut failures = Vec::new();
        let mut batch = Batch::default();
        let mut sent = Vec::new();
        for (index, BoundAddress { link, address }) in bound.iter().enumerate() {
            let Some(link) = named(&links, link) else {
                if add {
                    failures.push((index, format!("there is no link {link}").into()));
                }
                continue;
            };
            let (kind, flags) = match add {
                true => (Rtm::Newaddr, CREATE),
                false => (Rtm::Deladdr, NlmF::empty()),
            };
            batch.push(kind, flags, &rtnetlink::own_address(link.index, *address));
            sent.push(index);
        }
        for (place, refused) in self.route.batch(&mut batch).map_err(told)? {
            match refused.errno {
                Errno::EXIST if add => {}
                Errno::ADDRNOTAVAIL | Errno::NODEV if !add => {}
                _ => failures.push((sent[place], with_advice(refused))),
            }
        }
        Ok(failures)
    }

    fn change_rules(&mut self, transaction: &Transaction) -> Result<(), Message> {
        let rules = self.kernel_rules().map_err(told)?;
        rules
            .ok_or_else(|| told(NftError::NoNfTables))?
            .commit(transaction)
            .map_err(told)
    }

    fn open_gue_port(&mut self, port: GuePort) -> Result<(), Message> {
        let remember = |record: &mut Record| {
            record.gue_ports.insert(port);
        };
        self.journal.write(remember).map_err(not_recorded)?;
        self.gue_ports().and_then(|ports| ports.add(port)).map_err(told)
    }

    fn close_gue_port(&mut self, port: GuePort) -> Result<(), Message> {
        self.gue_ports()
            .and_then(|ports| ports.delete(port))
            .map_err(told)?;
        let forget = |record: &mut Record| {
            record.gue_ports.remove(&port);
        };
        self.journal.write(forget).map_err(not_recorded)
    }

    fn announce(&mut self, bound: &[&BoundAddress]) -> Result<(), Message> {
        let (links, _) = self.links().map_err(told)?;
        let packets = match &mut self.packets {
            Some(packets) => packets,
            none => none.insert(PacketSocket::open().map_err(|errno| -> Message {
                format!("{}: CAP_NET_RAW is needed", io::Error::from(errno)).into()
            })?),
        };
        for BoundAddress { link, address } in bound {
            // A link without neighbours has nobody to tell, and one that is down nobody who hears.
            let link = named(&links, link).filter(|link| link.up && link.resolves);
            if let Some((link, mac)) = link.and_then(|link| Some((link, link.mac?))) {
                for frame in announcement::frames(*address, mac) {
                    packets
                        .send(link.index, &frame)
                        .map_err(|errno| -> Message { io::Error::from(errno).to_string().into() })?;
                }
            }
        }
        Ok(())
    }
}

fn named<'a>(links: &'a BTreeMap<u32, Link>, name: &str) -> Option<&'a Link> {
    links.values().find(|link| *link.name == *name)
}

/// Why a step failed.
type Message = Box<str>;

/// An error with its causes, on one line.
fn told(error: impl Error) -> Message {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message += &format!(": {error}");
        cause = error.source();
    }
    message.into()
}

fn not_recorded(error: io::Error) -> Message {
    format!("what it was cannot be recorded in the state directory: {error}").into()
}

fn with_advice(refused: Refused) -> Message {
    match refused.errno {
        Errno::PERM => "not permitted: CAP_NET_ADMIN is needed".into(),
        _ => told(refused),
    }
}

/// Why a link could not be made, with the way out where there is one.
fn why_no_link(error: NetlinkError, kind: LinkKind) -> Message {
    let driver = kind.driver();
    match error.refusal() {
        Some(Errno::OPNOTSUPP) => format!(
            "this kernel has no links of kind {driver}: load the module (modprobe {}); {error}",
            module(driver)
        )
        .into(),
        Some(Errno::EXIST) => format!(
            "there is one of that name, or one that does the same, which Weir did not make: ip link delete it (ip -d link \
             show type {driver})"
        )
        .into(),
        _ => told(error),
    }
}

fn during<E: Into<Box<dyn Error + Send + Sync>>>(act: &str) -> impl FnOnce(E) -> HostError {
    let act = act.into();
    move |source| HostError {
        act,
        source: source.into(),
    }
}

/// The module that has a driver.
fn module(driver: &str) -> &str {
    match driver {
        "gre" => "ip_gre",
        "ip6gre" => "ip6_gre",
        "ip6tnl" => "ip6_tunnel",
        other => other,
    }
}

impl HostStore for KernelHost {
    fn read(&mut self, sysctls: &mut dyn Iterator<Item = &str>) -> Result<Current, HostError> {
        let (network, links) = self.network()?;
        let Record {
            sysctls: changed_sysctls,
            gue_ports: recorded,
            links: _,
        } = self.journal.record().clone();
        let mut values = BTreeMap::new();
        let asked: BTreeSet<Box<str>> = sysctls.map(Box::from).collect();
        for name in asked.iter().chain(changed_sysctls.keys()) {
            let value = self.sysctls.read(name).map_err(during("read the settings"))?;
            values.extend(value.map(|value| (name.clone(), value)));
        }
        // As long as nobody wanted a port, asking would load a module for nothing.
        let gue_ports: BTreeSet<GuePort> = if self.gue.is_some() || !recorded.is_empty() {
            match self.gue_ports().and_then(GuePorts::list) {
                Ok(ports) => ports.into_iter().collect(),
                Err(FouError::NoModule) => BTreeSet::new(),
                Err(error) => return Err(during("list the GUE ports")(error)),
            }
        } else {
            BTreeSet::new()
        };
        let mut arp_rules = self.arp_rules;
        let mut rules = None;
        if let Some(kernel) = self.kernel_rules().map_err(during("open nf_tables"))? {
            rules = Some(kernel.read().map_err(during("read the nftables rules"))?);
            if arp_rules.is_none() {
                arp_rules = Some(kernel.has_arp().map_err(during("ask for family arp"))?);
            }
        }
        self.arp_rules = arp_rules;
        Ok(Current {
            network,
            links,
            sysctls: values,
            changed_sysctls,
            own_gue_ports: recorded.intersection(&gue_ports).copied().collect(),
            gue_ports,
            rules,
            arp_rules: arp_rules.unwrap_or_default(),
        })
    }

    fn inspect(&mut self, sysctls: &[String]) -> Result<Inspection, HostError> {
        let needed = [
            (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
        ];
        let has = capabilities(None)
            .map_err(during("read this process's capabilities"))?
            .effective;
        let mut values = BTreeMap::new();
        for name in sysctls {
            let value = self.sysctls.read(name).map_err(during("read the settings"))?;
            values.extend(value.map(|value| (name.as_str().into(), value)));
        }
        let foreign_arp = match self.kernel_rules().map_err(during("open nf_tables"))? {
            Some(rules) => rules
                .foreign_arp()
                .map_err(during("read other people's rules for ARP"))?,
            None => Vec::new(),
        };
        // Only there while the old arptables is.
        let old = fs::read_to_string("/proc/thread-self/net/arp_tables_names").unwrap_or_default();
        Ok(Inspection {
            missing_capabilities: needed
                .iter()
                .filter(|(one, _)| !has.contains(*one))
                .map(|(_, name)| *name)
                .collect(),
            sysctls_writable: self.sysctls.are_writable(),
            sysctls: values,
            foreign_arp,
            old_arptables: old.lines().map(Into::into).collect(),
            ..Inspection::default()
        })
    }

    fn ports(&self) -> Vec<u32> {
        let rules = self.rules.as_ref().map(KernelRuleset::port);
        std::iter::once(self.route.port()).chain(rules).collect()
    }

    fn apply(&mut self, changes: &[HostChange], failures: &mut Vec<HostFailure>) {
        take_in_order(changes, failures, |run| self.take(run));
    }
}

impl KernelHost {
    /// Takes steps in one go, and says which of them failed and why.
    fn take(&mut self, run: &[&HostChange]) -> Vec<(usize, Message)> {
        let Some(first) = run.first() else {
            return Vec::new();
        };
        let bound: Vec<&BoundAddress> = run.iter().filter_map(|change| change.bound()).collect();
        let result = match first {
            HostChange::AddAddress(_) => self.bring_addresses(&bound, true),
            HostChange::DeleteAddress(_) => self.bring_addresses(&bound, false),
            HostChange::Announce(_) => self.announce(&bound).map(all_well),
            HostChange::SetSysctl { name, value } => self.set_sysctl(name, value).map(all_well),
            HostChange::RestoreSysctl { name } => self.restore_sysctl(name).map(all_well),
            HostChange::AddLink { name, kind } => self.add_link(name, *kind).map(all_well),
            HostChange::DeleteLink { name } => self.delete_link(name).map(all_well),
            HostChange::OpenGuePort(port) => self.open_gue_port(*port).map(all_well),
            HostChange::CloseGuePort(port) => self.close_gue_port(*port).map(all_well),
            HostChange::ChangeRules(transaction) => self.change_rules(transaction).map(all_well),
        };
        // Why nothing of it could be done is why each could not.
        result.unwrap_or_else(|message| (0..run.len()).map(|index| (index, message.clone())).collect())
    }
}

fn all_well((): ()) -> Vec<(usize, Message)> {
    Vec::new()
}
