//! What is not left half-done when a client goes away.
//!
//! The server drops the handler of a request whose connection ends. A write that is queued by then becomes
//! durable all the same, so whatever has to follow it must not hang on the handler.

use std::panic::resume_unwind;

/// Runs that to its end, whether or not somebody still waits for it.
pub(crate) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The process ends.
            Err(_) => std::future::pending().await,
        },
    }
}
