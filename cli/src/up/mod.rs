//! `holdfast up`: metadata service, node agent and client in one process on one directory.

mod disks;
mod pages;
mod parts;
mod plan;
mod quotas;
mod stop;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use tokio::task::JoinHandle;

use crate::args::UpArgs;
use crate::data_dir::admin_socket;
use crate::http;
use crate::tuning::Tuning;

use self::pages::LivePages;
use self::parts::Parts;
use self::stop::Signals;

/// The name of the volume that `up` mounts.
const VOLUME: &str = "default";

/// Serves until a signal, or until somebody unmounts; then everything accepted is on disk.
pub fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let tuning = Tuning::from_env()?;
    let plan = plan::make(&args)?;
    // Before any other thread is started.
    client::share_heaps();
    client::ask_for_short_slices();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        builder.worker_threads(2).enable_all().thread_name("worker").build().context("start a runtime")?;
    let done = runtime.block_on(serve(plan, tuning));
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

async fn serve(mut plan: plan::Plan, tuning: Tuning) -> anyhow::Result<()> {
    let mut signals = Signals::take()?;
    let metrics = plan.metrics.take();
    let socket = reachable(admin_socket(&plan.data));
    let started = Instant::now();
    let pages = Arc::new(LivePages::new(Parts::start(plan, tuning).await?));
    let served = match serve_pages(&socket, metrics, &pages) {
        Ok(servers) => {
            let served = until_the_end(&pages, &mut signals, started).await;
            servers.iter().for_each(JoinHandle::abort);
            served
        }
        Err(error) => until_unmounted(&pages, &mut signals).await.and(Err(error)),
    };
    let stopped = match pages.take().await {
        Some(parts) => parts.stop().await,
        None => Ok(()),
    };
    // It may never have been made.
    let _ = std::fs::remove_file(&socket);
    served.and(stopped)
}

/// The socket's path from the root on, by which the kernel lists it and others find it; as it is if that is too long for
/// a socket's name (unix(7)).
fn reachable(socket: PathBuf) -> PathBuf {
    const NAME_MAX: usize = 107;
    match std::path::absolute(&socket) {
        Ok(absolute) if absolute.as_os_str().len() <= NAME_MAX => absolute,
        _ => socket,
    }
}

fn serve_pages(
    socket: &Path,
    metrics: Option<std::net::TcpListener>,
    pages: &Arc<LivePages>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut servers = vec![tokio::spawn(http::serve_admin(http::bind_admin(socket)?, pages.clone()))];
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener).context("use the metrics socket")?;
        servers.push(tokio::spawn(http::serve_tcp(listener, pages.clone())));
    }
    Ok(servers)
}

async fn until_the_end(pages: &LivePages, signals: &mut Signals, started: Instant) -> anyhow::Result<()> {
    let parts = pages.parts().await.context("nobody has stopped it yet")?;
    println!("{}", parts.greeting(started.elapsed()).await?);
    // Each arm waits for something that stays true, so dropping the others loses nothing.
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        ended = parts.mount.ended() => {
            tracing::info!(?ended, "the mount was taken away, stopping");
            return Ok(());
        }
        why = parts.failed() => {
            // Unmounted, it would show the directory below: an empty one that applications take for their data.
            let dir = parts.mount.dir().display();
            tracing::error!("{why}; the mount on {dir} stays and answers errors until it is served again");
            return Err(anyhow!(why));
        }
    }
    stop::unmount(&parts.mount, signals).await
}

async fn until_unmounted(pages: &LivePages, signals: &mut Signals) -> anyhow::Result<()> {
    let parts = pages.parts().await.context("nobody has stopped it yet")?;
    stop::unmount(&parts.mount, signals).await
}
