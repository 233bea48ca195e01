//! `holdfast up`: metadata service, node agent and client in one process on one directory.

mod pages;
mod parts;
mod plan;
mod stop;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

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
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().thread_name("worker").build().context("start a runtime")?;
    let done = runtime.block_on(serve(plan, tuning));
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

async fn serve(plan: plan::Plan, tuning: Tuning) -> anyhow::Result<()> {
    let mut signals = Signals::take()?;
    let metrics = plan.metrics.as_ref().map(|bound| bound.try_clone()).transpose().context("use the metrics socket")?;
    let data = plan.data.clone();
    let started = std::time::Instant::now();
    let parts = Arc::new(Parts::start(plan, tuning).await?);
    let pages = Arc::new(LivePages::new(parts.clone()));
    let admin = tokio::spawn(http::serve_admin(http::bind_admin(&admin_socket(&data))?, pages.clone()));
    let public = match metrics {
        Some(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener).context("use the metrics socket")?;
            Some(tokio::spawn(http::serve_tcp(listener, pages.clone())))
        }
        None => None,
    };
    println!("{}", parts.greeting(started.elapsed()).await?);

    // Each arm waits for something that stays true, so dropping the others loses nothing.
    let unmounted = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            stop::unmount(&parts.mount, &mut signals).await
        }
        ended = parts.mount.ended() => {
            tracing::info!(?ended, "the mount was taken away, stopping");
            Ok(())
        }
        why = parts.failed() => {
            eprintln!("holdfast: {why}");
            stop::unmount(&parts.mount, &mut signals).await.and(Err(anyhow::anyhow!("{why}")))
        }
    };
    pages.stopping();
    admin.abort();
    if let Some(public) = public {
        public.abort();
    }
    let _ = std::fs::remove_file(admin_socket(&data));
    drop(pages);
    // The pages' tasks are aborted; the last of them lets go of the parts.
    let parts = unwrap_when_alone(parts).await;
    let stopped = parts.stop().await;
    unmounted?;
    stopped
}

async fn unwrap_when_alone(mut parts: Arc<Parts>) -> Parts {
    loop {
        match Arc::try_unwrap(parts) {
            Ok(parts) => return parts,
            Err(shared) => parts = shared,
        }
        tokio::task::yield_now().await;
    }
}
