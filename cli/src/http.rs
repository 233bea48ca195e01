//! The pages of a running `up`: `/metrics`, `/healthz`, `/readyz` on TCP, and with `/status` on the admin socket.

use std::convert::Infallible;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, bail};
use client::OpFigures;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::metrics;
use crate::report::Report;

/// The most connections that are served at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// The page that gives a disk up, before the disk's id.
const FAIL_DISK: &str = "/disks/fail/";

/// What the pages show at one moment.
pub struct Live {
    /// The status document.
    pub report: Report,
    /// What each volume's mount counted.
    pub operations: Vec<(String, Vec<OpFigures>)>,
}

/// Where the pages take it from.
pub trait Pages: Send + Sync + 'static {
    /// What they show now; `None` while everything stops.
    fn gather(&self) -> Pin<Box<dyn Future<Output = Option<Live>> + Send + '_>>;

    /// Gives a disk up for ever. An error says why not, in a sentence.
    fn fail_disk(&self, disk: Uuid) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}

/// Serves the public pages on `listener` until dropped.
pub async fn serve_tcp(listener: TcpListener, pages: Arc<dyn Pages>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, pages.clone(), false, seats.clone()).await,
            Err(error) => refused(&error).await,
        }
    }
}

/// Makes the admin socket, which only its owner may use.
pub fn bind_admin(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove the old {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    // The data directory is 0700 when `up` made it; where it was there before, the socket still is its owner's alone.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protect {}", path.display()))?;
    Ok(listener)
}

/// Serves all pages on the admin socket until dropped.
pub async fn serve_admin(listener: UnixListener, pages: Arc<dyn Pages>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, pages.clone(), true, seats.clone()).await,
            Err(error) => refused(&error).await,
        }
    }
}

/// An accept fails when descriptors run out; those come back only with time.
async fn refused(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

async fn serve<S>(stream: S, pages: Arc<dyn Pages>, admin: bool, seats: Arc<Semaphore>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(seat) = seats.acquire_owned().await else { return };
    tokio::spawn(async move {
        let _seat = seat;
        let service = hyper::service::service_fn(move |request| {
            let pages = pages.clone();
            async move { Ok::<_, Infallible>(answer(request, pages.as_ref(), admin).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(std::time::Duration::from_secs(10));
        // A peer that breaks off is its own affair.
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    });
}

async fn answer(request: Request<Incoming>, pages: &dyn Pages, admin: bool) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    let stopping = (StatusCode::SERVICE_UNAVAILABLE, text, "stopping\n".to_string());
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => (StatusCode::OK, text, "ok\n".to_string()),
        (&Method::GET, "/readyz") => match pages.gather().await.map(|live| live.report) {
            None => stopping,
            Some(report) if report.state == "ready" => (StatusCode::OK, text, "ready\n".to_string()),
            Some(report) => {
                let why = report.why.unwrap_or(report.state);
                (StatusCode::SERVICE_UNAVAILABLE, text, format!("{why}\n"))
            }
        },
        (&Method::GET, "/metrics") => match pages.gather().await {
            None => stopping,
            Some(live) => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                (StatusCode::OK, kind, metrics::text(&live.report, live.operations))
            }
        },
        (&Method::GET, "/status") if admin => match pages.gather().await {
            None => stopping,
            Some(live) => match serde_json::to_string(&live.report) {
                Ok(body) => (StatusCode::OK, "application/json", body),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, text, format!("{error}\n")),
            },
        },
        (&Method::POST, path) if admin && path.starts_with(FAIL_DISK) => {
            let failed = match path[FAIL_DISK.len()..].parse() {
                Ok(disk) => pages.fail_disk(disk).await,
                Err(_) => Err("this is not the id of a disk".to_string()),
            };
            match failed {
                Ok(()) => (StatusCode::OK, text, String::new()),
                Err(why) => (StatusCode::CONFLICT, text, format!("{why}\n")),
            }
        }
        (&Method::GET, _) => {
            (StatusCode::NOT_FOUND, text, "there are /metrics, /healthz and /readyz\n".to_string())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, text, "only GET is served\n".to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Asks the admin socket at `path` for a page.
pub async fn ask_admin(path: &Path, page: &str) -> anyhow::Result<String> {
    send_admin(path, Method::GET, page).await
}

/// Tells the `up` behind the admin socket at `path` to give a disk up.
pub async fn fail_disk(path: &Path, disk: Uuid) -> anyhow::Result<()> {
    send_admin(path, Method::POST, &format!("{FAIL_DISK}{disk}")).await.map(|_| ())
}

async fn send_admin(path: &Path, method: Method, page: &str) -> anyhow::Result<String> {
    let stream = UnixStream::connect(path).await.with_context(|| format!("connect to {}", path.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(page)
        .header("host", "holdfast")
        .body(Full::<Bytes>::default())?;
    let response = sender.send_request(request).await.context("ask the running `up`")?;
    let status = response.status();
    let body = response.into_body().collect().await.context("read the answer")?.to_bytes();
    drop(sender);
    let _ = driver.await;
    let body = String::from_utf8(body.to_vec()).context("read the answer")?;
    if status == StatusCode::CONFLICT {
        bail!("{}", body.trim());
    }
    if status != StatusCode::OK {
        bail!("the running `up` answered {status}: {}", body.trim());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::{Live, Pages, Report, ask_admin, bind_admin, fail_disk, serve_admin};
    use std::future::Future;
    use std::os::unix::fs::PermissionsExt;
    use std::pin::Pin;
    use std::sync::Arc;
    use uuid::Uuid;

    struct Fixed;

    impl Pages for Fixed {
        fn gather(&self) -> Pin<Box<dyn Future<Output = Option<Live>> + Send + '_>> {
            let report =
                Report { state: "read-only".into(), why: Some("nearly full".into()), ..Report::blank() };
            Box::pin(std::future::ready(Some(Live { report, operations: Vec::new() })))
        }

        fn fail_disk(&self, disk: Uuid) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
            let refused = Err("files are whole nowhere else".to_string());
            Box::pin(std::future::ready(if disk.is_nil() { Ok(()) } else { refused }))
        }
    }

    #[tokio::test]
    async fn the_admin_socket_is_private_and_answers() {
        let tmp = tempfile::tempdir().expect("a folder");
        let path = tmp.path().join("admin.sock");
        std::fs::write(&path, "left over").expect("written");
        let listener = bind_admin(&path).expect("bound");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let server = tokio::spawn(serve_admin(listener, Arc::new(Fixed)));
        let status = ask_admin(&path, "/status").await.expect("answered");
        assert_eq!(serde_json::from_str::<Report>(&status).expect("a report").state, "read-only");
        let metrics = ask_admin(&path, "/metrics").await.expect("answered");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        let why = format!("{:#}", ask_admin(&path, "/readyz").await.expect_err("not ready"));
        assert!(why.contains("nearly full"), "{why}");
        assert!(ask_admin(&path, "/else").await.is_err());
        fail_disk(&path, Uuid::nil()).await.expect("given up");
        let why = format!("{:#}", fail_disk(&path, Uuid::max()).await.expect_err("refused"));
        assert_eq!(why, "files are whole nowhere else");
        server.abort();
    }
}
