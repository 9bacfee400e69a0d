//! The command line.
//!
//! | file | what |
//! | --- | --- |
//! | `agent` | `weir agent` |
//! | `controller` | `weir controller` |
//! | `process` | what both have in common |
//! | `offline` | `weir check`, `plan` and `apply`: manifests without an agent |
//! | `table` | `weir table` |
//! | `view` | entries and changes as text, JSON and YAML |

mod agent;
mod controller;
mod offline;
mod process;
mod table;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::api;

/// Everything went as it should.
const OK: u8 = 0;
/// Something failed.
const FAILED: u8 = 1;
/// `plan --detailed-exitcode` found differences.
const DIFFERENCES: u8 = 3;

/// A load balancer on the Linux kernel's own IPVS, from Kubernetes resources or a folder of the same manifests.
///
/// VirtualService and RealServer resources say what is wanted; `weir agent` makes the node's IPVS table match and
/// keeps it matching. What it did not make itself it leaves alone.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    disable_help_subcommand = true,
    after_help = "Exit status: 0 as wanted; 1 something failed; 2 wrong usage; 3 `plan --detailed-exitcode` found \
                  differences.\n\nEnvironment: NO_COLOR turns colours off; RUST_LOG sets what is logged, such as \
                  weir=debug."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::AgentArguments),
    Controller(controller::ControllerArguments),
    Plan(offline::PlanArguments),
    Apply(offline::ApplyArguments),
    Check(offline::CheckArguments),
    Table(table::TableArguments),
    /// Print the CustomResourceDefinitions as YAML
    ///
    /// `weir crds | kubectl apply --server-side -f -` installs them.
    Crds,
    /// Print a completion script for a shell
    ///
    /// For bash: weir completions bash > /etc/bash_completion.d/weir
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How something is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

/// Runs the command line and says how the process ends.
///
/// # Errors
///
/// Whatever kept the command from doing its work.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let code = match cli.command {
        Command::Agent(arguments) => arguments.run()?,
        Command::Controller(arguments) => arguments.run()?,
        Command::Plan(arguments) => arguments.run()?,
        Command::Apply(arguments) => arguments.run()?,
        Command::Check(arguments) => arguments.run()?,
        Command::Table(arguments) => arguments.run()?,
        Command::Crds => {
            for crd in api::crds() {
                view::print(&format!("---\n{}", api::crd_yaml(&crd)?))?;
            }
            OK
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
            view::print(&String::from_utf8_lossy(&script))?;
            OK
        }
    };
    Ok(ExitCode::from(code))
}
