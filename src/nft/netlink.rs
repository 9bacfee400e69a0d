//! The kernel's nf_tables of the network namespace in which the connection was opened.

use neli::ToBytes;
use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use thiserror::Error;

use crate::netlink::{Connection, Errno, NetlinkError, Refused};

use super::diff::Transaction;
use super::foreign::ForeignChain;
use super::ruleset::{Chain, ChainKind, Family, Hook, Ruleset};
use super::wire::{self, Act, Assembly, Deed, MessageType, Script, Unwritable};

/// How often to begin anew when somebody else changes rules meanwhile. A reading takes milliseconds and kube-proxy, the
/// busiest neighbour there is, writes once a second.
const ATTEMPTS: usize = 8;
/// The name of the table that is proposed to the kernel to see whether it knows a family. It never comes to be.
const TRIAL_TABLE: &str = "weir-trial";

/// Why the kernel's nf_tables could not be read or changed.
#[derive(Debug, Error)]
pub enum NftError {
    /// The kernel has no nf_tables and could not load it.
    #[error(
        "this kernel has no nf_tables: load its module (modprobe nf_tables), or install the kernel package that holds \
         it (Debian: linux-image-amd64; RHEL: kernel-modules-core)"
    )]
    NoNfTables,
    /// The process may not read or change rules.
    #[error(
        "not permitted to {act}: CAP_NET_ADMIN is needed (run as root, or give the container the capability \
         NET_ADMIN)"
    )]
    NotPermitted {
        /// What was tried.
        act: Box<str>,
    },
    /// The kernel cannot translate addresses.
    #[error(
        "cannot {act}: this kernel's nf_tables cannot translate addresses; load its modules (modprobe -a \
         nft_chain_nat nft_nat nft_masq)"
    )]
    NoNat {
        /// What was tried.
        act: Box<str>,
    },
    /// The kernel's nf_tables does not look at ARP.
    #[error("cannot {act}: this kernel's nf_tables has no family arp (CONFIG_NF_TABLES_ARP)")]
    NoArp {
        /// What was tried.
        act: Box<str>,
    },
    /// Somebody else changed Weir's tables since they were read. Nothing was changed; read them again.
    #[error("the tables named weir were changed by another program: look again")]
    Stale,
    /// Other programs changed rules each time Weir was about to.
    #[error("cannot {act}: other programs change nftables rules all the time")]
    Restless {
        /// What was tried.
        act: &'static str,
    },
    /// The kernel refused one message of a transaction. Nothing was changed.
    #[error("cannot {act}")]
    Refused {
        /// What the message was to do.
        act: Box<str>,
        /// Why it was refused.
        #[source]
        refused: Refused,
    },
    /// The transaction holds what has no form. Nothing was changed.
    #[error("cannot write nftables rules")]
    Unwritable(#[source] Unwritable),
    /// The exchange failed.
    #[error("cannot {act}")]
    Netlink {
        /// What was asked.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: NetlinkError,
    },
}

impl NftError {
    fn during(act: &'static str) -> impl Fn(NetlinkError) -> Self {
        move |source| match source.refusal() {
            Some(Errno::PERM) => Self::NotPermitted { act: act.into() },
            _ => Self::Netlink { act, source },
        }
    }

    /// What the refusal of one message of a transaction means; `None` stands for the whole of it.
    fn of_refusal(act: Option<&Act>, refused: Refused) -> Self {
        let Some(act) = act else {
            let act: Box<str> = "change nftables rules".into();
            return match refused.errno {
                Errno::PERM => Self::NotPermitted { act },
                _ => Self::Refused { act, refused },
            };
        };
        let Act { family, what } = act;
        let act = act.to_string().into();
        let is_nat = matches!(
            what,
            Deed::AddChain { nat: true, .. } | Deed::AddRule { nat: true, .. }
        );
        let is_family = matches!(what, Deed::AddTable | Deed::AddChain { .. });
        match refused.errno {
            Errno::PERM => Self::NotPermitted { act },
            Errno::NOENT | Errno::OPNOTSUPP if is_nat => Self::NoNat { act },
            Errno::NOENT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT if is_family && *family == Family::Arp => {
                Self::NoArp { act }
            }
            _ => Self::Refused { act, refused },
        }
    }
}

/// What the caller was last told is there.
#[derive(Debug)]
struct Seen {
    ruleset: Ruleset,
    /// The generation of all rules when it was so; `None` when another may have come since.
    generation: Option<u32>,
}

/// The kernel's tables that are named `weir`.
#[derive(Debug)]
pub struct KernelRuleset {
    connection: Connection,
    seen: Option<Seen>,
}

impl KernelRuleset {
    /// Opens the rules of the calling thread's network namespace. The kernel loads nf_tables if it can.
    ///
    /// # Errors
    ///
    /// [`NftError::NoNfTables`] where the kernel has no nf_tables, [`NftError::NotPermitted`] without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, NftError> {
        let connection = Connection::open(NlFamily::Netfilter).map_err(|error| match error {
            NetlinkError::Open(reason) if Errno::from_io_error(&reason) == Some(Errno::PROTONOSUPPORT) => {
                NftError::NoNfTables
            }
            error => NftError::during("look for the kernel's nf_tables")(error),
        })?;
        let mut kernel = Self {
            connection,
            seen: None,
        };
        match kernel.generation() {
            Ok(_) => Ok(kernel),
            // nfnetlink knows no such subsystem.
            Err(NftError::Netlink { source, .. })
                if matches!(source.refusal(), Some(Errno::INVAL | Errno::OPNOTSUPP)) =>
            {
                Err(NftError::NoNfTables)
            }
            Err(error) => Err(error),
        }
    }

    /// The port of the connection, which the kernel tells with every event that a commit causes.
    pub fn port(&self) -> u32 {
        self.connection.port()
    }

    /// Reads Weir's tables. A single question to the kernel if no rule of the namespace has changed since the last
    /// reading or commit.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked, or rules changed each time while they were read.
    pub fn read(&mut self) -> Result<Ruleset, NftError> {
        let generation = self.generation()?;
        if let Some(seen) = &self.seen
            && seen.generation == Some(generation)
        {
            return Ok(seen.ruleset.clone());
        }
        let (ruleset, generation) = self.read_in_peace("read nftables rules", Self::list)?;
        self.seen = Some(Seen {
            ruleset: ruleset.clone(),
            generation: Some(generation),
        });
        Ok(ruleset)
    }

    /// Takes all steps of a transaction or none: those from what was last read, or left by the last commit, to
    /// something else. Without either, whatever is there is what the steps start from.
    ///
    /// Changes to other tables meanwhile do no harm.
    ///
    /// # Errors
    ///
    /// [`NftError::Stale`] if somebody else has changed Weir's tables since; the next [`Self::read`] shows how. All
    /// other errors, too, leave everything as it was, but for a lost answer ([`NetlinkError::OutcomeUnknown`]).
    pub fn commit(&mut self, transaction: &Transaction) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let generation = self.generation_of_what_was_seen()?;
            let mut script =
                wire::write_transaction(transaction, generation).map_err(NftError::Unwritable)?;
            match self.send(&mut script) {
                Ok(None) => {
                    self.note_commit(transaction, generation);
                    return Ok(());
                }
                Ok(Some((_, refused))) if refused.errno == Errno::RESTART => self.doubt_what_was_seen(),
                Ok(Some((index, refused))) => return Err(NftError::of_refusal(script.act(index), refused)),
                Err(error) => {
                    self.doubt_what_was_seen();
                    return Err(error);
                }
            }
        }
        Err(NftError::Restless {
            act: "change nftables rules",
        })
    }

    /// Whether the kernel's nf_tables looks at ARP: asks whether it would take a chain there. Nothing is left behind.
    ///
    /// # Errors
    ///
    /// The kernel could not be asked, or refused for another reason.
    pub fn has_arp(&mut self) -> Result<bool, NftError> {
        let chain = Chain {
            kind: ChainKind::Filter,
            hook: Hook::Input,
            priority: 0,
            rules: Vec::new(),
        };
        let mut script = wire::write_trial(Family::Arp, TRIAL_TABLE, &chain).map_err(NftError::Unwritable)?;
        let Some((index, refused)) = self.send(&mut script)? else {
            return Ok(true);
        };
        match NftError::of_refusal(script.act(index), refused) {
            NftError::NoArp { .. } => Ok(false),
            error => Err(error),
        }
    }

    /// All chains at a hook of family `arp` that are not in Weir's table, with their rules.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn foreign_arp(&mut self) -> Result<Vec<ForeignChain>, NftError> {
        let (chains, _) = self.read_in_peace("read the rules for ARP", |kernel| {
            let of_family = wire::family_request(Family::Arp);
            let mut chains = Vec::new();
            kernel.dump("list chains", MessageType::GetChain, &of_family, |_, payload| {
                chains.extend(wire::read_foreign_chain(payload));
            })?;
            kernel.dump("list rules", MessageType::GetRule, &of_family, |_, payload| {
                wire::read_foreign_rule(payload, &mut chains);
            })?;
            Ok(chains)
        })?;
        Ok(chains)
    }

    /// Sends a batch and says the first refusal.
    fn send(&mut self, script: &mut Script) -> Result<Option<(usize, Refused)>, NftError> {
        let last = script.last();
        let refused = self
            .connection
            .transaction(&mut script.batch, last)
            .map_err(NftError::during("change nftables rules"))?;
        Ok(refused.into_iter().next().map(|(index, mut refused)| {
            script.explain(index, &mut refused);
            (index, refused)
        }))
    }

    /// The generation for which what was last seen holds, after another look if that is in doubt.
    fn generation_of_what_was_seen(&mut self) -> Result<u32, NftError> {
        if let Some(Seen {
            generation: Some(generation),
            ..
        }) = self.seen
        {
            return Ok(generation);
        }
        let expected = self.seen.take().map(|seen| seen.ruleset);
        let (ruleset, generation) = self.read_in_peace("read nftables rules", Self::list)?;
        let as_expected = expected.is_none_or(|expected| expected == ruleset);
        self.seen = Some(Seen {
            ruleset,
            generation: Some(generation),
        });
        as_expected.then_some(generation).ok_or(NftError::Stale)
    }

    fn doubt_what_was_seen(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.generation = None;
        }
    }

    /// Notes what the kernel holds after a commit at `generation`. If the next one has come by now, it is the commit's
    /// own; with any other, somebody else's change may have come on top.
    fn note_commit(&mut self, transaction: &Transaction, generation: u32) {
        let next = generation.wrapping_add(1);
        // The commit has succeeded whether or not this question does.
        let current = self.generation().ok();
        if let Some(seen) = &mut self.seen {
            seen.ruleset = transaction.apply_to(&seen.ruleset);
            seen.generation = current.filter(|current| *current == next);
        }
    }

    /// Reads what takes several questions, again and again until nothing changed from the first to the last. Says with
    /// it the generation of which it is the picture.
    fn read_in_peace<T>(
        &mut self,
        act: &'static str,
        read: impl Fn(&mut Self) -> Result<T, NftError>,
    ) -> Result<(T, u32), NftError> {
        let mut before = self.generation()?;
        for _ in 0..ATTEMPTS {
            let answer = read(self);
            let after = self.generation()?;
            if before == after {
                return answer.map(|answer| (answer, after));
            }
            before = after;
        }
        Err(NftError::Restless { act })
    }

    fn list(&mut self) -> Result<Ruleset, NftError> {
        let mut assembly = Assembly::default();
        self.dump(
            "list tables",
            MessageType::GetTable,
            &wire::request(),
            |kind, payload| {
                assembly.take(kind, payload);
            },
        )?;
        let families: Vec<Family> = assembly.ruleset().keys().copied().collect();
        for family in families {
            let sets = wire::sets_request(family);
            self.dump("list sets", MessageType::GetSet, &sets, |kind, payload| {
                assembly.take(kind, payload);
            })?;
            let sets: Vec<Box<str>> = assembly
                .ruleset()
                .get(&family)
                .map(|table| table.sets.keys().cloned().collect())
                .unwrap_or_default();
            for set in sets {
                let elements = wire::elements_request(family, &set);
                self.dump(
                    "list elements",
                    MessageType::GetElements,
                    &elements,
                    |kind, payload| {
                        assembly.take(kind, payload);
                    },
                )?;
            }
            // Chains are listed for a whole family only.
            let chains = wire::family_request(family);
            self.dump("list chains", MessageType::GetChain, &chains, |kind, payload| {
                assembly.take(kind, payload);
            })?;
            let rules = wire::rules_request(family);
            self.dump("list rules", MessageType::GetRule, &rules, |kind, payload| {
                assembly.take(kind, payload);
            })?;
        }
        Ok(assembly.into_ruleset())
    }

    fn generation(&mut self) -> Result<u32, NftError> {
        let mut generation = None;
        self.connection
            .request(
                MessageType::GetGeneration,
                NlmF::empty(),
                &wire::request(),
                |kind, payload| {
                    if MessageType::from(kind) == MessageType::NewGeneration {
                        generation = wire::read_generation(payload);
                    }
                },
            )
            .and_then(|()| generation.ok_or(NetlinkError::OutcomeUnknown))
            .map_err(NftError::during("ask for the generation of nftables rules"))
    }

    fn dump(
        &mut self,
        act: &'static str,
        kind: MessageType,
        body: &impl ToBytes,
        on_reply: impl FnMut(u16, &[u8]),
    ) -> Result<(), NftError> {
        self.connection
            .request(kind, NlmF::DUMP, body, on_reply)
            .map_err(NftError::during(act))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(what: Deed, family: Family, errno: Errno) -> String {
        NftError::of_refusal(Some(&Act { family, what }), errno.into()).to_string()
    }

    #[test]
    fn a_refusal_is_told_with_its_way_out_where_there_is_one() {
        let chain = |nat: bool| Deed::AddChain {
            chain: "c".into(),
            nat,
        };
        let rule = Deed::AddRule {
            chain: "c".into(),
            place: 2,
            nat: true,
        };
        for (what, family, errno, words) in [
            (
                chain(true),
                Family::Ipv4,
                Errno::NOENT,
                "cannot add chain c of ip: this kernel's nf_tables cannot translate",
            ),
            (
                rule.clone(),
                Family::Ipv6,
                Errno::OPNOTSUPP,
                "modprobe -a nft_chain_nat nft_nat nft_masq",
            ),
            (
                rule,
                Family::Ipv6,
                Errno::INVAL,
                "cannot add rule 2 of chain c of ip6",
            ),
            (chain(false), Family::Arp, Errno::OPNOTSUPP, "has no family arp"),
            (
                Deed::AddTable,
                Family::Arp,
                Errno::AFNOSUPPORT,
                "cannot add table arp: this kernel's nf_tables has no family arp",
            ),
            (
                Deed::AddSet("s".into()),
                Family::Ipv4,
                Errno::PERM,
                "not permitted to add set s of ip: CAP_NET_ADMIN",
            ),
            (
                Deed::DeleteElements("s".into()),
                Family::Arp,
                Errno::NOENT,
                "cannot delete elements of s of arp",
            ),
        ] {
            let told = told(what, family, errno);
            assert!(told.contains(words), "{told:?} does not say {words:?}");
        }
        let whole = NftError::of_refusal(None, Errno::PERM.into()).to_string();
        assert!(
            whole.starts_with("not permitted to change nftables rules"),
            "{whole}"
        );
    }
}
