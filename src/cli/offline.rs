//! `weir check`, `plan` and `apply`: manifests without an agent.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::catalog::{Catalog, Finding, NamespacedName, Scope};
use crate::host::preflight::{self, Check};
use crate::host::{self, Current, HostError, HostState, HostStore};
use crate::ipvs::{KernelTable, TableStore as _, diff};
use crate::ledger::{Entries, Ledger};
use crate::plan::{
    Node, NodeNeeds, Plan, Role, ServiceNeeds, group_needs, node_needs, plan, vips_of_kube_proxy,
};
use crate::reconcile::Reconciler;
use crate::source::folder::{FolderReading, read_paths};
use crate::source::manifest::{Diagnostic, Level};

use crate::telemetry::colours;

use super::agent::{NodeArguments, StateArguments};
use super::view::{self, PlannedChange, PlannedStep, counted};
use super::{DIFFERENCES, FAILED, OK, OutputFormat};

/// Where manifests are.
#[derive(Debug, Args)]
struct ManifestArguments {
    /// A manifest, a folder of manifests, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// Reads manifests and shows what is wrong; errors always, remarks only where they are asked for.
fn read(paths: &[PathBuf], remarks: bool) -> FolderReading {
    let reading = read_paths(paths);
    let colours = colours(&io::stderr());
    for diagnostic in &reading.diagnostics {
        if remarks || diagnostic.level == Level::Error {
            eprintln!("{}\n", diagnostic.draw(colours).trim_end());
        }
    }
    reading
}

/// Check manifests, and this node
///
/// Manifests: the same checks of syntax, fields, values and rules that the Kubernetes API server makes with the same
/// messages, and those of the manifest itself; neither a kernel with IPVS nor a Kubernetes API is needed. With --node
/// what about this host stands in the way of what they ask of it: capabilities, modules, settings, other people's rules.
/// Ends with 1 if anything is wrong.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// A manifest, a folder of manifests, or - for standard input; may be given several times
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "PATH",
        required_unless_present = "this_node"
    )]
    paths: Vec<PathBuf>,
    /// Check this host, too
    #[arg(long = "node")]
    this_node: bool,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    state: StateArguments,
}

impl CheckArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut good = true;
        let mut catalog = Catalog::new(self.node.mark_mask);
        if !self.paths.is_empty() {
            let reading = read(&self.paths, true);
            good &= !reading.has_errors();
            view::print(&reading_summary(&reading))?;
            for update in reading.updates {
                catalog.update(update);
            }
        }
        if self.this_node {
            let checks = self.check_node(&catalog)?;
            good &= checks.iter().all(|check| check.result.is_ok());
            view::print(&view::checks_text(&checks, colours(&io::stdout())))?;
        }
        Ok(if good { OK } else { FAILED })
    }

    fn check_node(&self, catalog: &Catalog) -> anyhow::Result<Vec<Check>> {
        let node = self.node.node()?;
        let mut host = self.state.host()?;
        let HostPlan { current, desired, .. } =
            plan_host(catalog, &node, &plan(catalog, &node, &Scope::All), &mut host)?;
        let mut inspection = host.inspect(&preflight::settings(&current.network))?;
        inspection.vips_of_kube_proxy = vips_of_kube_proxy(catalog, &current.network);
        let table = KernelTable::open().and_then(|mut table| table.info());
        let ipvs = Check {
            subject: "IPVS".into(),
            result: match table {
                Ok(info) => Ok(format!("version {}", info.version_words()).into()),
                Err(error) => Err(format!("{:#}", anyhow::Error::from(error)).into()),
            },
        };
        let mut checks = vec![ipvs];
        checks.extend(preflight::preflight(&inspection, &current, &desired));
        Ok(checks)
    }
}

/// "3 objects in 2 files: good, 1 remark; 1 object not Weir's".
fn reading_summary(reading: &FolderReading) -> String {
    let is_error = |diagnostic: &&Diagnostic| diagnostic.level == Level::Error;
    let errors = reading.diagnostics.iter().filter(is_error).count();
    let verdict = if errors == 0 {
        "good".to_owned()
    } else {
        counted(errors, "error")
    };
    let mut summary = format!(
        "{} in {}: {verdict}",
        counted(reading.updates.len(), "object"),
        counted(reading.files, "file"),
    );
    let remarks = reading.diagnostics.len() - errors;
    if remarks > 0 {
        summary += &format!(", {}", counted(remarks, "remark"));
    }
    if reading.skipped > 0 {
        summary += &format!("; {} not Weir's", counted(reading.skipped, "object"));
    }
    summary + "\n"
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

/// Show what manifests would change in this kernel's IPVS table and around it
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
    /// What happens around the table.
    around: Vec<PlannedStep>,
    findings: Vec<String>,
}

/// What there is around the table and what there should be, and what is to be said about that.
struct HostPlan {
    current: Current,
    desired: HostState,
    findings: BTreeMap<NamespacedName, Vec<Finding>>,
}

fn plan_host(
    catalog: &Catalog,
    node: &Node,
    plan: &Plan,
    host: &mut impl HostStore,
) -> Result<HostPlan, HostError> {
    let of_groups = group_needs(catalog, node);
    let names = of_groups.sysctls.keys().map(|name| &**name);
    let current = host.read(&mut names.chain(host::SYSCTLS))?;
    let NodeNeeds { needs, findings } = node_needs(catalog, node, &current.network, &Scope::All, plan);
    let desired = host::desired(
        needs.values().flat_map(ServiceNeeds::all).chain([&of_groups]),
        &current,
    );
    Ok(HostPlan {
        current,
        desired,
        findings,
    })
}

impl PlanArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let reading = read(&self.wish.manifests.paths, false);
        let failed = reading.has_errors();
        let mut catalog = Catalog::new(self.wish.node.mark_mask);
        for update in reading.updates {
            catalog.update(update);
        }
        let node = self.wish.node.node()?;
        let current = KernelTable::open()?.list()?;
        let mut plan = plan(&catalog, &node, &Scope::All);
        plan.keep_leaving(&current);
        let host = plan_host(&catalog, &node, &plan, &mut self.wish.state.host()?)?;
        let steps = host::diff(&host.current, &host.desired, failed);
        let Plan { table, findings, .. } = plan;
        let findings = [findings, host.findings]
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .flatten();
        let findings: Vec<Finding> = findings.chain(valid(&catalog)).collect();
        let (owned, found) = Entries::read(&self.wish.state.state_dir)?;
        tell_damage(self.wish.state.damage(found));
        let mut changes = diff(&current, &table, |key| self.wish.exclusive || owned.owns(key));
        if failed {
            // As apply would.
            let before = changes.len();
            changes.retain(|change| !change.is_deletion());
            tell_withheld(before - changes.len());
        }
        tell_roles(&catalog, &node);
        let changes = view::planned(&current, &changes);
        let around = view::planned_around(&steps);
        let differences = !changes.is_empty() || !around.is_empty();
        match self.output {
            OutputFormat::Text => {
                print_findings(&findings);
                let colours = colours(&io::stdout());
                let text = view::plan_text(&changes, colours) + &view::around_text(&around, colours);
                view::print(&(text + &view::plan_summary(&changes, &around)))?;
            }
            format => {
                let findings = findings.iter().map(ToString::to_string).collect();
                let plan = PlanView {
                    changes,
                    around,
                    findings,
                };
                view::print_value(&plan, format)?;
            }
        }
        Ok(match (failed, differences && self.detailed_exit_code) {
            (true, _) => FAILED,
            (false, true) => DIFFERENCES,
            (false, false) => OK,
        })
    }
}

/// Make this kernel's IPVS table and what is around it as manifests say, once
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
        let reading = read(&self.wish.manifests.paths, false);
        let failed = reading.has_errors();
        let store = KernelTable::open()?;
        let (ledger, found) = Ledger::open(&self.wish.state.state_dir)?;
        tell_damage(self.wish.state.damage(found));
        let node = self.wish.node.node()?;
        let mut reconciler = Reconciler::new(
            node.clone(),
            ledger,
            store,
            self.wish.state.host()?,
            self.wish.exclusive,
            self.wish.node.mark_mask,
        );
        // A bad manifest must not take away what an earlier, good form of it has programmed.
        reconciler.keep_everything(failed);
        for update in reading.updates {
            reconciler.update(update);
        }
        let (current, pass) = reconciler.pass_once().context("nothing has been changed")?;
        print_findings(&reconciler.findings().into_iter().collect::<Vec<_>>());
        let of_the_table = pass.changes.len() - pass.failures.len();
        let refused =
            pass.failures.len() + reconciler.host_failures().len() + reconciler.table_failures().len();
        let mut text = String::new();
        if self.verbose {
            let colours = colours(&io::stdout());
            text = view::plan_text(&view::planned(&current, &pass.changes), colours)
                + &view::around_text(&view::planned_around(&pass.steps), colours);
        }
        text += &format!(
            "{} applied, {} refused.\n",
            counted(of_the_table + pass.steps.len(), "change"),
            refused
        );
        view::print(&text)?;
        for failure in &pass.failures {
            eprintln!("error: {failure}");
        }
        for failure in reconciler.host_failures() {
            eprintln!("error: {failure}");
        }
        for failure in reconciler.table_failures() {
            eprintln!("error: {failure}");
        }
        tell_withheld(pass.withheld.len());
        tell_roles(reconciler.catalog(), &node);
        Ok(if failed || refused > 0 { FAILED } else { OK })
    }
}

/// What validation has to say about objects that are used all the same.
fn valid(catalog: &Catalog) -> impl Iterator<Item = Finding> {
    catalog
        .findings()
        .filter(|finding| finding.reason != crate::catalog::Reason::Invalid)
}

/// Says why nothing may come of manifests on this node: another one balances.
fn tell_roles(catalog: &Catalog, node: &Node) {
    for (group, form) in catalog.director_groups() {
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
