//! `cargo xtask sim`: crashes in simulation.

use crate::shell;

/// Arguments of `sim`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many distinct (operation, prefix) pairs to cut, over all components.
    #[arg(long, default_value_t = 100_000)]
    pub points: u64,

    /// Where the workloads start from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Only this component.
    #[arg(long)]
    pub component: Option<String>,

    /// Plant each known bug in turn and fail unless it is caught.
    #[arg(long)]
    pub bugs: bool,
}

/// Runs the simulation in the profile of the tests: its assertions stay on, and a panic that a planted bug brings about
/// is caught, where a release would abort.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--package", "sim", "--"]);
    command.args(["--points", &args.points.to_string(), "--seed", &args.seed.to_string()]);
    if let Some(component) = &args.component {
        command.args(["--component", component]);
    }
    if args.bugs {
        command.arg("--bugs");
    }
    shell::run(&mut command)
}
