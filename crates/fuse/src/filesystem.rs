//! What the kernel's requests are served from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use types::Errno;
use vfs::{Ctx, Op, Outcome};

/// The answer to an operation, now or later.
///
/// It is polled once on the thread that read the request, without a waker that anybody hears; if it is not ready it
/// moves to the runtime and is polled there. So its first poll must not block, and must not count on being woken.
pub type OpFuture = Pin<Box<dyn Future<Output = Result<Outcome, Errno>> + Send>>;

/// A file tree as the kernel asks for it. Any number of operations run at once.
pub trait Filesystem: Send + Sync + 'static {
    /// Runs one operation. [`Op`] says which [`Outcome`] answers it; any other is answered to the kernel as `EIO`.
    ///
    /// Once returned, the future is run to its end, whatever becomes of the caller or the mount; it is dropped early
    /// only when the runtime shuts down.
    fn handle(self: Arc<Self>, op: Op, ctx: Ctx) -> OpFuture;

    /// The caller of a write is gone; `unique` is its [`Ctx`]'s. If it waits and nothing of it is accepted yet it may end
    /// with `EINTR`. Told again and again as long as it runs. Must not block.
    fn interrupt(&self, _unique: u64) {}
}

impl Filesystem for vfs::Vfs {
    fn handle(self: Arc<Self>, op: Op, ctx: Ctx) -> OpFuture {
        Box::pin(async move { vfs::Vfs::handle(&self, op, ctx).await })
    }

    fn interrupt(&self, unique: u64) {
        vfs::Vfs::interrupt(self, unique);
    }
}
