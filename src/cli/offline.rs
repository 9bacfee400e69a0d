//! `weir check`, `plan` and `apply`: manifests without an agent.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::ipvs::{KernelTable, TableStore as _, diff};
use crate::ledger::{Entries, Ledger};
use crate::plan::{Finding, Node, Plan, Role, Scope, Snapshot, plan};
use crate::reconcile::Reconciler;
use crate::source::folder::{FolderReading, read_paths};
use crate::source::manifest::Level;

use crate::telemetry::colours;

use super::agent::{NodeArguments, StateArguments};
use super::view::{self, PlannedChange, counted};
use super::{DIFFERENCES, FAILED, OK, OutputFormat};

/// Where manifests are.
#[derive(Debug, Args)]
struct ManifestArguments {
    /// A manifest, a folder of manifests, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

impl ManifestArguments {
    /// Reads them and shows what is wrong; errors always, remarks only where they are asked for.
    fn read(&self, remarks: bool) -> FolderReading {
        let reading = read_paths(&self.paths);
        let colours = colours(&io::stderr());
        for diagnostic in &reading.diagnostics {
            if remarks || diagnostic.level == Level::Error {
                eprintln!("{}\n", diagnostic.draw(colours).trim_end());
            }
        }
        reading
    }
}

/// Check manifests: syntax, fields, values and rules
///
/// The same checks that the Kubernetes API server makes with the same messages, and those of the manifest itself.
/// Neither a kernel with IPVS nor a Kubernetes API is needed. Ends with 1 if anything is wrong.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    manifests: ManifestArguments,
}

impl CheckArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let reading = self.manifests.read(true);
        let errors = reading
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.level == Level::Error)
            .count();
        let mut summary = format!(
            "{} in {}: {}",
            counted(reading.updates.len(), "object"),
            counted(reading.files, "file"),
            if errors == 0 {
                "good".to_owned()
            } else {
                counted(errors, "error")
            }
        );
        let remarks = reading.diagnostics.len() - errors;
        if remarks > 0 {
            summary += &format!(", {}", counted(remarks, "remark"));
        }
        if reading.skipped > 0 {
            summary += &format!("; {} not Weir's", counted(reading.skipped, "object"));
        }
        view::print(&(summary + "\n"))?;
        Ok(if errors == 0 { OK } else { FAILED })
    }
}

/// What a table is to become, and on which node: the same for looking and for doing.
#[derive(Debug, Args)]
struct WishArguments {
    #[command(flatten)]
    manifests: ManifestArguments,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    state: StateArguments,
    /// Own the whole table: what nothing asks for is deleted, whoever made it
    #[arg(long)]
    exclusive: bool,
}

/// Show what manifests would change in this kernel's IPVS table
///
/// Signs: + add, ~ change, - delete. The manifests are the whole wish: an entry that Weir made and they do not ask
/// for would be deleted. Entries that Weir did not make stay. Nothing is changed.
#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    wish: WishArguments,
    /// End with 3 if there are differences
    #[arg(long = "detailed-exitcode")]
    detailed_exit_code: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// A plan for programs.
#[derive(Debug, Serialize)]
struct PlanView {
    changes: Vec<PlannedChange>,
    findings: Vec<String>,
}

impl PlanArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let reading = self.wish.manifests.read(false);
        let failed = reading.has_errors();
        let mut snapshot = Snapshot::default();
        for update in reading.updates {
            snapshot.update(update);
        }
        let node = self.wish.node.node()?;
        let Plan { table, findings, .. } = plan(&snapshot, &node, &Scope::All);
        let findings: Vec<Finding> = findings.into_values().flatten().chain(valid(&snapshot)).collect();
        let (owned, found) = Entries::read(&self.wish.state.state_dir)?;
        tell_damage(self.wish.state.damage(found));
        let current = KernelTable::open()?.list()?;
        let mut changes = diff(&current, &table, |key| self.wish.exclusive || owned.owns(key));
        if failed {
            // As apply would.
            let before = changes.len();
            changes.retain(|change| !change.is_deletion());
            tell_withheld(before - changes.len());
        }
        tell_roles(&snapshot, &node);
        let changes = view::planned(&current, &changes);
        let differences = !changes.is_empty();
        match self.output {
            OutputFormat::Text => {
                print_findings(&findings);
                let text = view::plan_text(&changes, colours(&io::stdout())) + &view::plan_summary(&changes);
                view::print(&text)?;
            }
            format => {
                let findings = findings.iter().map(ToString::to_string).collect();
                view::print_value(&PlanView { changes, findings }, format)?;
            }
        }
        Ok(match (failed, differences && self.detailed_exit_code) {
            (true, _) => FAILED,
            (false, true) => DIFFERENCES,
            (false, false) => OK,
        })
    }
}

/// Make this kernel's IPVS table as manifests say, once
///
/// Programs what `weir plan` shows and ends; `weir agent` keeps it so. The manifests are the whole wish: an entry
/// that Weir made and they do not ask for is deleted. Entries that Weir did not make stay. Ends with 1 if a manifest
/// or a change was refused; everything else is done all the same.
#[derive(Debug, Args)]
pub(super) struct ApplyArguments {
    #[command(flatten)]
    wish: WishArguments,
    /// Show every change, as `weir plan` does
    #[arg(short, long)]
    verbose: bool,
}

impl ApplyArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let reading = self.wish.manifests.read(false);
        let failed = reading.has_errors();
        let store = KernelTable::open()?;
        let (ledger, found) = Ledger::open(&self.wish.state.state_dir)?;
        tell_damage(self.wish.state.damage(found));
        let node = self.wish.node.node()?;
        let mut reconciler = Reconciler::new(node.clone(), ledger, store, self.wish.exclusive);
        // A bad manifest must not take away what an earlier, good form of it has programmed.
        reconciler.keep_everything(failed);
        for update in reading.updates {
            reconciler.update(update);
        }
        let (current, pass) = reconciler.pass_once().context("nothing has been changed")?;
        print_findings(&reconciler.findings().into_iter().collect::<Vec<_>>());
        let mut text = String::new();
        if self.verbose {
            text = view::plan_text(&view::planned(&current, &pass.changes), colours(&io::stdout()));
        }
        text += &format!(
            "{} applied, {} refused.\n",
            counted(pass.changes.len() - pass.failures.len(), "change"),
            pass.failures.len()
        );
        view::print(&text)?;
        for failure in &pass.failures {
            eprintln!("error: {failure}");
        }
        tell_withheld(pass.withheld.len());
        tell_roles(reconciler.snapshot(), &node);
        Ok(if failed || !pass.failures.is_empty() {
            FAILED
        } else {
            OK
        })
    }
}

/// What validation has to say about objects that are used all the same.
fn valid(snapshot: &Snapshot) -> impl Iterator<Item = Finding> {
    snapshot
        .findings()
        .filter(|finding| finding.reason != crate::plan::Reason::Invalid)
}

/// Says why nothing may come of manifests on this node: another one balances.
fn tell_roles(snapshot: &Snapshot, node: &Node) {
    for (group, form) in snapshot.director_groups() {
        let part = match node.role(form) {
            Role::Active => continue,
            Role::Standby => "stands by in",
            Role::None => "has no part in",
        };
        eprintln!(
            "note: this node, {}, {part} DirectorGroup {group}: it programs none of its virtual services \
             (--node-name and --node-labels say which node this is)",
            node.name
        );
    }
}

fn tell_damage(warning: Option<String>) {
    if let Some(warning) = warning {
        eprintln!("warning: {warning}");
    }
}

fn tell_withheld(deletions: usize) {
    if deletions > 0 {
        eprintln!(
            "warning: {} left out, because not every manifest could be read: mend it first",
            counted(deletions, "deletion")
        );
    }
}

fn print_findings(findings: &[Finding]) {
    for finding in findings {
        eprintln!("warning: {finding}");
    }
}
