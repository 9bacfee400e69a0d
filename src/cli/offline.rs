//! `weir check`, `plan` and `apply`: manifests without an agent.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use clap::Args;

use crate::catalog::{Catalog, Finding, MarkMask, Reason, Scope, Update};
use crate::causes::with_causes;
use crate::host::preflight::Check;
use crate::ipvs::{KernelTable, TableStore as _};
use crate::ledger::{Entries, Ledger};
use crate::node::{self, AroundWork, Leavers, Pass, PassError, Preview, Programmer, TableWork, Work};
use crate::plan::{Directing, Knowledge, Node, Plan, Role, World, plan};
use crate::source::folder::{FolderReading, read_paths};
use crate::source::manifest::{Diagnostic, Level};
use crate::telemetry::colours;

use super::agent::{NodeArguments, StateArguments};
use super::view::{self, PlanView, counted};
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
        let mut world = World::new(self.node.node()?, self.node.mark_mask);
        if !self.paths.is_empty() {
            let reading = read(&self.paths, true);
            good &= !reading.has_errors();
            let findings = findings_of_whichever_node(reading.updates.iter().cloned(), self.node.mark_mask);
            print_findings(&findings);
            view::print(&reading_summary(&reading, findings.len()))?;
            take_in(&mut world, reading.updates);
        }
        if self.this_node {
            let checks = self.check_node(&mut world)?;
            good &= checks.iter().all(|check| check.result.is_ok());
            view::print(&view::checks_text(&checks, colours(&io::stdout())))?;
        }
        Ok(if good { OK } else { FAILED })
    }

    fn check_node(&self, world: &mut World) -> anyhow::Result<Vec<Check>> {
        let mut host = self.state.host()?;
        let table = KernelTable::open().and_then(|mut table| table.info());
        let ipvs = Check {
            subject: "IPVS".into(),
            result: match table {
                Ok(info) => Ok(format!("version {}", info.version_words()).into()),
                Err(error) => Err(with_causes(&error).into()),
            },
        };
        let mut checks = vec![ipvs];
        checks.extend(node::inspect(world, &mut host)?);
        Ok(checks)
    }
}

/// What planning has to say of objects as whichever node is active: what their status would say.
fn findings_of_whichever_node(updates: impl Iterator<Item = Update>, mark_mask: MarkMask) -> Vec<Finding> {
    let whichever = Node {
        directing: Directing::Everywhere,
        ..Node::default()
    };
    let mut world = World::new(whichever, mark_mask);
    take_in(&mut world, updates);
    if !world.catalog.knows_director_groups() {
        // A folder without any is for a host that stands alone.
        world.node.directing = Directing::AlsoAlone;
    }
    findings_of(&plan(&world, &Scope::Every))
}

fn take_in(world: &mut World, updates: impl IntoIterator<Item = Update>) {
    for update in updates {
        world.update(update);
    }
}

fn findings_of(plan: &Plan) -> Vec<Finding> {
    let services = plan.services.values();
    let findings: BTreeSet<&Finding> = services.flat_map(|service| &service.findings).collect();
    findings.into_iter().cloned().collect()
}

/// "3 objects in 2 files: good, 1 remark; 1 object not Weir's".
fn reading_summary(reading: &FolderReading, findings: usize) -> String {
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
    let remarks = reading.diagnostics.len() - errors + findings;
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

impl WishArguments {
    /// What is wanted, and how much is known of it. A manifest that cannot be read must not take away what an earlier, good
    /// version of it has programmed.
    fn read(&self) -> anyhow::Result<World> {
        let reading = read(&self.manifests.paths, false);
        let mut world = World::new(self.node.node()?, self.node.mark_mask);
        world.knowledge = match reading.has_errors() {
            true => Knowledge::Partial,
            false => Knowledge::Whole,
        };
        take_in(&mut world, reading.updates);
        Ok(world)
    }
}

/// All there is to do for a world, once.
fn all_of(world: &World) -> Work {
    Work {
        scope: Scope::Every,
        plan: plan(world, &Scope::Every),
        table: TableWork::Everything,
        around: AroundWork::Bring,
        leavers: Leavers::KeepServing,
        may_delete: world.knowledge.allows_deleting(),
    }
}

impl PlanArguments {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut world = self.wish.read()?;
        let (owned, found) = Entries::read(&self.wish.state.state_dir)?;
        tell_damage(self.wish.state.damage(found));
        let (table, host) = (KernelTable::open()?, self.wish.state.host()?);
        let mut programmer = Programmer::new(table, host, owned, self.wish.exclusive);
        world.network = Some(programmer.look()?);
        let work = all_of(&world);
        let findings = all_findings(&work.plan, &world.catalog);
        let Preview {
            current,
            steps,
            withheld,
            ..
        } = programmer.preview(work)?;
        tell_withheld(withheld.len());
        tell_roles(&world);
        let plan = PlanView::new(&current.table, &steps, &findings);
        let differences = !plan.is_empty();
        match self.output {
            OutputFormat::Text => {
                print_findings(&findings);
                view::print(&plan.text(colours(&io::stdout()), true))?;
            }
            format => view::print_value(&plan, format)?,
        }
        Ok(match (world.knowledge, differences && self.detailed_exit_code) {
            (Knowledge::Partial, _) => FAILED,
            (_, true) => DIFFERENCES,
            (_, false) => OK,
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
        let mut world = self.wish.read()?;
        let table = KernelTable::open()?;
        let (ledger, found) = Ledger::open(&self.wish.state.state_dir)?;
        tell_damage(self.wish.state.damage(found));
        let before = self.verbose.then(|| KernelTable::open()?.list()).transpose()?;
        let mut programmer = Programmer::new(table, self.wish.state.host()?, ledger, self.wish.exclusive);
        world.network = Some(programmer.look()?);
        let work = all_of(&world);
        let findings = all_findings(&work.plan, &world.catalog);
        let (pass, broken_off) = match programmer.run(work) {
            Ok(pass) => (pass, None),
            Err(PassError::Unfinished { done, cause }) => (*done, Some(cause)),
            Err(error @ PassError::NotBegun(_)) => return Err(error.into()),
        };
        print_findings(&findings);
        let mut text = String::new();
        if let Some(before) = before {
            text = PlanView::new(&before, &pass.steps, &[]).text(colours(&io::stdout()), false);
        }
        text += &format!(
            "{} applied, {} refused.\n",
            counted(pass.done(), "change"),
            pass.refusals()
        );
        view::print(&text)?;
        tell_failures(&pass);
        if let Some(cause) = &broken_off {
            eprintln!(
                "error: broken off, what has been done stays: {}",
                with_causes(cause)
            );
        }
        tell_withheld(pass.withheld.len());
        tell_roles(&world);
        let failed = broken_off.is_some() || !world.knowledge.allows_deleting() || pass.refusals() > 0;
        Ok(if failed { FAILED } else { OK })
    }
}

fn tell_failures(pass: &Pass) {
    for failure in &pass.refused {
        eprintln!("error: {failure}");
    }
    for failure in &pass.around_failures {
        eprintln!("error: {failure}");
    }
    for failure in &pass.global_failures {
        eprintln!("error: {failure}");
    }
}

/// What planning has to say about objects, and what validation has to say about those that are used all the same.
fn all_findings(plan: &Plan, catalog: &Catalog) -> Vec<Finding> {
    let valid = catalog
        .findings()
        .filter(|finding| finding.reason != Reason::Invalid);
    findings_of(plan).into_iter().chain(valid).collect()
}

/// Says why nothing may come of manifests on this node: another one balances.
fn tell_roles(world: &World) {
    for (group, settings) in world.catalog.director_groups() {
        let part = match world.node.role(settings) {
            Role::Active => continue,
            Role::Standby => "stands by in",
            Role::None => "has no part in",
        };
        eprintln!(
            "note: this node, {}, {part} DirectorGroup {group}: it programs none of its virtual services \
             (--node-name and --node-labels say which node this is)",
            world.node.name
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
