//! Encrypted connections: handshakes run beside each other, so that a slow one holds nobody up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::config::TlsConfig;

/// Connections whose handshake is done and that nobody took yet.
const WAITING_MAX: usize = 64;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection: out of files, mostly.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Connections of which each has shaken hands.
pub(super) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

/// Reads certificate and key.
///
/// # Errors
/// When a file cannot be read, holds none, or the two do not belong together.
pub(super) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor> {
    let TlsConfig { certificate, key } = config;
    let wrong = |name: &str, path: &std::path::Path| format!("`tls.{name}`: `{}` cannot be used", path.display());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let certificates = certificates.map_err(plain).with_context(|| wrong("certificate", certificate))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(plain).with_context(|| wrong("key", key))?;
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS has no versions")?;
    let mut server = versions
        .with_no_client_auth()
        .with_single_cert(certificates, secret)
        .map_err(plain)
        .with_context(|| wrong("key", key))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// A wrong file is a wrong configuration, not a failure outside.
fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

impl TlsListener {
    /// Shakes hands with whoever comes to `listener`.
    pub(super) fn start(listener: TcpListener, acceptor: TlsAcceptor) -> Result<Self> {
        let address = listener.local_addr().context("the address cannot be told")?;
        let (done, ready) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            while !done.is_closed() {
                match listener.accept().await {
                    Ok((stream, peer)) => _ = tokio::spawn(shake(acceptor.clone(), stream, peer, done.clone())),
                    Err(error) => {
                        debug!(%error, "a connection was not accepted");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
        });
        Ok(Self { address, ready })
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        // The port may be closing.
        Ok(Ok(stream)) => _ = done.send((stream, peer)).await,
        Ok(Err(error)) => debug!(%peer, %error, "a handshake failed"),
        Err(_) => debug!(%peer, "a handshake took too long"),
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The task ends with the listener alone.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
