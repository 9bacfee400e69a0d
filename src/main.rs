//! The `weir` command.

use std::process::ExitCode;

use clap::Parser as _;
use weir::cli::{self, Cli};

fn main() -> ExitCode {
    // Before anything speaks TLS: with no provider set, the first connection would panic.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
