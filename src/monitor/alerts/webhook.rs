//! Posts an event to the user's webhook, signed.
//!
//! `X-Stallproof-Signature: sha256=<hex>` is the HMAC-SHA256 of the body under the key in the secret file. The whole
//! exchange has five seconds, no redirect is followed, no proxy is used, and nothing of the answer but its status is
//! read. Neither URL nor key is ever logged.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::address;
use crate::config::Webhook;

const LIMIT: Duration = Duration::from_secs(5);
/// The header that carries the signature.
const SIGNATURE: &str = "X-Stallproof-Signature";

/// Why an event was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookError {
    /// The key is not to be had.
    #[error("cannot read the webhook's secret file `{path}`")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The receiver did not take it.
    #[error("the webhook did not take the event: {0}")]
    Post(String),
}

/// Posts `body`, a JSON text.
pub(super) fn post(hook: &Webhook, body: &[u8]) -> Result<(), WebhookError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .max_redirects(0)
        .proxy(None)
        .https_only(!hook.allow_private)
        .user_agent(concat!("stallproof/", env!("CARGO_PKG_VERSION")))
        .build();
    let resolver = Checked { allow_private: hook.allow_private, inner: DefaultResolver::default() };
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
    let mut request = agent.post(&hook.url).header("Content-Type", "application/json");
    if let Some(path) = &hook.secret_file {
        let secret =
            std::fs::read(path).map_err(|source| WebhookError::Secret { path: path.clone(), source })?;
        request = request.header(SIGNATURE, signature(secret.trim_ascii_end(), body));
    }
    match request.send(body) {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(WebhookError::Post(format!("it answered {}", answer.status()))),
        Err(err) => Err(WebhookError::Post(without_url(&err))),
    }
}

/// What went wrong, without the URL: it may carry a token.
fn without_url(err: &ureq::Error) -> String {
    match err {
        ureq::Error::StatusCode(code) => format!("it answered {code}"),
        ureq::Error::Timeout(_) => format!("no answer within {LIMIT:?}"),
        ureq::Error::HostNotFound => "its name cannot be resolved".to_owned(),
        ureq::Error::Io(err) => err.to_string(),
        ureq::Error::Tls(what) => format!("TLS: {what}"),
        ureq::Error::Rustls(err) => format!("TLS: {err}"),
        _ => "the exchange failed".to_owned(),
    }
}

fn signature(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(body);
    let mut text = String::from("sha256=");
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Resolves names, and refuses what leads into this machine or network.
#[derive(Debug)]
struct Checked {
    allow_private: bool,
    inner: DefaultResolver,
}

impl Resolver for Checked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        if !self.allow_private && found.iter().any(|found| !address::is_public(found.ip())) {
            let what = "its name leads to a loopback or private address; set `allow_private = true` if that is meant";
            return Err(ureq::Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, what)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_signature_is_hmac_sha_256() {
        // RFC 4231, test case 2.
        assert_eq!(
            signature(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    /// A receiver that answers one request with `status`; the request it got.
    fn receiver(status: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?token=canary", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            let mut bytes = [0; 4096];
            while !text.ends_with("{\"a\":1}") {
                let n = stream.read(&mut bytes).unwrap();
                assert!(n > 0, "the request ended early: {text}");
                text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
            }
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: /elsewhere\r\n\r\n").unwrap();
            text
        });
        (url, thread)
    }

    #[test]
    fn an_event_arrives_signed_and_anything_but_success_is_a_failure_without_the_url() {
        let dir = tempfile::tempdir().unwrap();
        let secret_file = dir.path().join("secret");
        std::fs::File::create(&secret_file).unwrap().write_all(b"key\n").unwrap();
        for (status, fine) in [("204 No Content", true), ("500 Oops", false), ("302 Found", false)] {
            let (url, thread) = receiver(status);
            let hook = Webhook { url, secret_file: Some(secret_file.clone()), allow_private: true };
            let result = post(&hook, b"{\"a\":1}");
            let request = thread.join().unwrap().to_lowercase();
            assert!(
                request.contains(&format!("x-stallproof-signature: {}", signature(b"key", b"{\"a\":1}")))
            );
            assert_eq!(result.is_ok(), fine, "{status}");
            if let Err(err) = result {
                assert!(!err.to_string().contains("canary"), "{err}");
            }
        }
    }

    #[test]
    fn a_name_that_leads_home_is_refused() {
        let hook =
            Webhook { url: "https://localhost:1/".to_owned(), secret_file: None, allow_private: false };
        let err = post(&hook, b"{}").unwrap_err().to_string();
        assert!(err.contains("private address"), "{err}");
    }
}
