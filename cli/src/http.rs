//! The pages of a running `up`: `/metrics`, `/healthz`, `/readyz` on TCP, and with `/status` on the admin socket.

use std::convert::Infallible;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, bail};
use client::OpFigures;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::quota::{self, Order, Page};
use crate::report::Report;
use crate::stream::Streamed;
use crate::{backup, metrics};

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

    /// Does what is ordered of quotas; `None` while everything stops.
    fn obey(&self, order: Order) -> Pin<Box<dyn Future<Output = Option<anyhow::Result<Page>>> + Send + '_>>;

    /// Gives a disk up for ever. An error says why not, in a sentence.
    fn fail_disk(&self, disk: Uuid) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;

    /// Begins a backup of the metadata. An error says why not, in a sentence.
    fn backup(&self) -> Pin<Box<dyn Future<Output = Result<Streamed, String>> + Send + '_>>;
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

type Answer = Response<Either<Full<Bytes>, Streamed>>;

async fn answer(request: Request<Incoming>, pages: &dyn Pages, admin: bool) -> Answer {
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
        (&Method::POST, quota::PAGE) if admin => match read_order(request.into_body()).await {
            Err(error) => (StatusCode::BAD_REQUEST, text, format!("{error:#}\n")),
            Ok(order) => match pages.obey(order).await {
                None => stopping,
                Some(done) => match done.and_then(|page| Ok(serde_json::to_string(&page)?)) {
                    Ok(body) => (StatusCode::OK, "application/json", body),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, text, format!("{error:#}\n")),
                },
            },
        },
        (&Method::GET, backup::PAGE) if admin => match pages.backup().await {
            Ok(body) => return Response::new(Either::Right(body)),
            Err(why) => (StatusCode::CONFLICT, text, format!("{why}\n")),
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
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// An order of at most 4 KiB.
async fn read_order(body: Incoming) -> anyhow::Result<Order> {
    const ORDER_MAX: usize = 4096;
    let body = http_body_util::Limited::new(body, ORDER_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("read the order: {error}"))?.to_bytes();
    serde_json::from_slice(&body).context("understand the order")
}

/// Asks the admin socket at `path` for a page.
pub async fn ask_admin(path: &Path, page: &str) -> anyhow::Result<String> {
    send_admin(path, request(Method::GET, page, String::new())?).await
}

/// Sends an order to a page of the admin socket at `path`.
pub async fn order_admin(path: &Path, page: &str, order: String) -> anyhow::Result<String> {
    send_admin(path, request(Method::POST, page, order)?).await
}

/// Tells the `up` behind the admin socket at `path` to give a disk up.
pub async fn fail_disk(path: &Path, disk: Uuid) -> anyhow::Result<()> {
    order_admin(path, &format!("{FAIL_DISK}{disk}"), String::new()).await.map(drop)
}

fn request(method: Method, page: &str, body: String) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = Request::builder().method(method).uri(page).header("host", "holdfast");
    Ok(request.body(Full::new(Bytes::from(body)))?)
}

/// Whether an `up` listens on the admin socket at `path`; the socket of one that was killed stays behind.
pub async fn is_served(path: &Path) -> bool {
    UnixStream::connect(path).await.is_ok()
}

async fn send_admin(path: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<String> {
    let mut body = Vec::new();
    receive(path, request, &mut |part| {
        body.extend_from_slice(part);
        Ok(())
    })
    .await?;
    String::from_utf8(body).context("read the answer")
}

/// Asks the admin socket at `path` for a page that may be long: gives its parts to `take` as they come.
pub async fn read_admin(
    path: &Path,
    page: &str,
    take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    receive(path, request(Method::GET, page, String::new())?, take).await
}

async fn receive(
    path: &Path,
    request: Request<Full<Bytes>>,
    take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let stream = UnixStream::connect(path).await.with_context(|| format!("connect to {}", path.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.context("ask the running `up`")?;
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let why = body.collect().await.context("read the answer")?.to_bytes();
        let why = String::from_utf8_lossy(&why);
        if status == StatusCode::CONFLICT {
            bail!("{}", why.trim());
        }
        bail!("the running `up` answered {status}: {}", why.trim());
    }
    while let Some(frame) = body.frame().await {
        if let Ok(part) = frame.context("the running `up` broke off")?.into_data() {
            take(&part).context("write the answer")?;
        }
    }
    drop(sender);
    let _ = driver.await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        Live, Order, Page, Pages, Report, Streamed, ask_admin, bind_admin, fail_disk, is_served, order_admin,
        read_admin, serve_admin,
    };
    use crate::stream::streamed;
    use std::future::Future;
    use std::os::unix::fs::PermissionsExt;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use uuid::Uuid;

    /// Counts the backups.
    struct Fixed(AtomicU64);

    impl Pages for Fixed {
        fn gather(&self) -> Pin<Box<dyn Future<Output = Option<Live>> + Send + '_>> {
            let report =
                Report { state: "read-only".into(), why: Some("nearly full".into()), ..Report::blank() };
            Box::pin(std::future::ready(Some(Live { report, operations: Vec::new() })))
        }

        fn obey(
            &self,
            order: Order,
        ) -> Pin<Box<dyn Future<Output = Option<anyhow::Result<Page>>> + Send + '_>> {
            assert_eq!(order, Order::List);
            let page = Page { refused: None, counting: false, inodes: 3, quotas: Vec::new() };
            Box::pin(std::future::ready(Some(Ok(page))))
        }

        fn fail_disk(&self, disk: Uuid) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
            let refused = Err("files are whole nowhere else".to_string());
            Box::pin(std::future::ready(if disk.is_nil() { Ok(()) } else { refused }))
        }

        fn backup(&self) -> Pin<Box<dyn Future<Output = Result<Streamed, String>> + Send + '_>> {
            let (parts, body) = streamed();
            let sent = self.0.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                // More than the queue and the socket hold: the peer has to keep up.
                for n in 0..50u8 {
                    parts.send(vec![n; 100_000]).await.expect("the peer reads");
                }
                if sent > 0 {
                    parts.fail(std::io::Error::other("the rows cannot be read")).await;
                }
            });
            Box::pin(std::future::ready(if sent < 2 { Ok(body) } else { Err("another one".into()) }))
        }
    }

    #[tokio::test]
    async fn the_admin_socket_is_private_and_answers() {
        let tmp = tempfile::tempdir().expect("a folder");
        let path = tmp.path().join("admin.sock");
        std::fs::write(&path, "left over").expect("written");
        let listener = bind_admin(&path).expect("bound");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let server = tokio::spawn(serve_admin(listener, Arc::new(Fixed(AtomicU64::new(0)))));
        let status = ask_admin(&path, "/status").await.expect("answered");
        assert_eq!(serde_json::from_str::<Report>(&status).expect("a report").state, "read-only");
        let metrics = ask_admin(&path, "/metrics").await.expect("answered");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        let why = format!("{:#}", ask_admin(&path, "/readyz").await.expect_err("not ready"));
        assert!(why.contains("nearly full"), "{why}");
        assert!(ask_admin(&path, "/else").await.is_err());
        let page = order_admin(&path, "/quota", r#"{"order":"list"}"#.into()).await.expect("answered");
        assert!(page.contains("\"inodes\":3"), "{page}");
        let why = order_admin(&path, "/quota", "{}".into()).await.expect_err("no order");
        assert!(format!("{why:#}").contains("understand"), "{why:#}");
        fail_disk(&path, Uuid::nil()).await.expect("given up");
        let why = format!("{:#}", fail_disk(&path, Uuid::max()).await.expect_err("refused"));
        assert_eq!(why, "files are whole nowhere else");
        server.abort();
    }

    #[tokio::test]
    async fn a_long_page_comes_whole_or_breaks_off() {
        let tmp = tempfile::tempdir().expect("a folder");
        let path = tmp.path().join("admin.sock");
        assert!(!is_served(&path).await);
        let server =
            tokio::spawn(serve_admin(bind_admin(&path).expect("bound"), Arc::new(Fixed(AtomicU64::new(0)))));
        assert!(is_served(&path).await);
        let mut got = Vec::new();
        let mut take = |part: &[u8]| {
            got.extend_from_slice(part);
            Ok(())
        };
        read_admin(&path, "/backup", &mut take).await.expect("whole");
        let why = read_admin(&path, "/backup", &mut take).await.expect_err("broken off");
        assert!(format!("{why:#}").contains("broke off"), "{why:#}");
        let why = read_admin(&path, "/backup", &mut take).await.expect_err("refused");
        assert_eq!(format!("{why:#}"), "another one");
        let whole: Vec<u8> = (0..50u8).flat_map(|n| vec![n; 100_000]).collect();
        assert!(got.starts_with(&whole));
        server.abort();
        let _ = server.await;
        assert!(!is_served(&path).await, "the socket stays and nobody listens");
    }
}
