//! Certificates: who gets in, who does not, and what is written about it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use orchestrix::NotAttempted;
use orchestrix::cluster::transport::{Serve, TlsFiles, Transport, TransportOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::log::Log;
use super::refusals::refused;
use super::stage::{ECHO, End, Ledger, call, done, end, options};
use crate::harness::{eventually, in_time};

/// An authority, and a place for what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Authorities of one name would be told apart by their signatures only.
        let name = orchestrix::core::CommandId::fresh().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("it is signed").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Writes a certificate with its key and this authority into a directory.
    fn write(&self, directory: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TlsFiles {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("orchestrix://node/ada")];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        let at = |kind: &str| directory.join(format!("{name}.{kind}"));
        let files = TlsFiles { cert: at("cert"), key: at("key"), ca: at("ca") };
        std::fs::write(&files.cert, certificate.pem()).expect("the directory is ours");
        std::fs::write(&files.key, key.serialize_pem()).expect("the directory is ours");
        std::fs::write(&files.ca, &self.certificate).expect("the directory is ours");
        files
    }
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("it is ASCII"))
}

fn with(tls: TlsFiles) -> TransportOptions {
    TransportOptions { tls: Some(tls), ..options("a") }
}

/// Why an end with such files cannot call another one, as both sides say it.
async fn refused_with(files: TlsFiles, there: &End) -> String {
    let here = end(with(files)).await;
    refused(&here.peer(there)).await.to_string()
}

fn good(directory: &TempDir) -> (Authority, TlsFiles) {
    let authority = Authority::new();
    let files = authority.write(directory.path(), "good", |_| {});
    (authority, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_authority_talk_whatever_their_addresses() {
    let directory = TempDir::new().expect("a directory");
    let (authority, files) = good(&directory);
    let other = authority.write(directory.path(), "other", |params| {
        params.subject_alt_names = vec![uri("orchestrix://node/berta")];
    });
    let (here, there) = (end(with(files)).await, end(with(other)).await);
    assert_eq!(in_time("a call", here.peer(&there).call(call(&[ECHO]))).await, done(vec![ECHO]));
}

/// What the node whose port it is writes about a connection that it refused.
const REFUSED: &str = "a connection to the node's port was refused";

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let log = Log::start();
    let directory = TempDir::new().expect("a directory");
    let (_, files) = good(&directory);
    let there = end(with(files.clone())).await;
    let stranger = Authority::new().write(directory.path(), "stranger", |_| {});
    let why = refused_with(stranger.clone(), &there).await;
    assert!(why.contains("invalid peer certificate"), "it does not believe the other: {why}");
    // It believes the other, which does not believe it.
    let believes = TlsFiles { ca: files.ca, ..stranger };
    refused_with(believes, &there).await;
    assert!(log.has(REFUSED, "UnknownIssuer"));
    assert!(there.ledger.came().is_empty());
}

#[tokio::test]
async fn a_client_s_certificate_is_refused_at_the_node_s_port() {
    let log = Log::start();
    let directory = TempDir::new().expect("a directory");
    let (authority, files) = good(&directory);
    let there = end(with(files.clone())).await;
    let client = authority.write(directory.path(), "client", |params| {
        params.subject_alt_names = vec![uri("orchestrix://client/web")];
    });
    // A node does not even start with it, so it is shown by hand.
    let serve: std::sync::Arc<dyn Serve> = Ledger::new();
    let error = Transport::bind(with(client.clone()), serve).await.expect_err("it is no node's");
    assert!(error.to_string().contains("the certificate is not a node's"), "{error}");
    handshake(&there, Some(&client)).await.expect_err("it is no node's");
    assert!(log.has(REFUSED, "the certificate is not a node's"));
    assert!(handshake(&there, Some(&files)).await.is_ok(), "and a node's is welcome");
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate_or_without_tls() {
    let log = Log::start();
    let directory = TempDir::new().expect("a directory");
    let (_, files) = good(&directory);
    let there = end(with(files.clone())).await;
    handshake(&there, None).await.expect_err("it shows nothing");
    assert!(log.has(REFUSED, "peer sent no certificates"));
    let plain = end(options("a")).await;
    assert_eq!(refused(&plain.peer(&there)).await.kind(), "unavailable");
    assert!(there.ledger.came().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side() {
    let log = Log::start();
    let directory = TempDir::new().expect("a directory");
    let (authority, files) = good(&directory);
    let expired = authority.write(directory.path(), "expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let there = end(with(files.clone())).await;
    refused_with(expired.clone(), &there).await;
    assert!(log.has(REFUSED, "xpired"));
    let old = end(with(expired)).await;
    let why = refused_with(files, &old).await;
    assert!(why.contains("xpired"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_used_without_a_restart_and_bad_ones_are_not() {
    let directory = TempDir::new().expect("a directory");
    let (authority, files) = good(&directory);
    let there = end(with(files.clone())).await;
    let here = end(with(files.clone())).await;
    assert_eq!(in_time("a call", here.peer(&there).call(call(&[ECHO]))).await, done(vec![ECHO]));
    // A file that is half written: the last good ones stay.
    let key = std::fs::read(&files.key).expect("it is there");
    std::fs::write(&files.key, b"-----BEGIN PRIVATE").expect("the directory is ours");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    here.transport.forget(there.incarnation);
    assert_eq!(in_time("a call", here.peer(&there).call(call(&[ECHO]))).await, done(vec![ECHO]));
    std::fs::write(&files.key, key).expect("the directory is ours");
    // Another authority altogether, in the same files; whoever still has the old ones is refused.
    let stays = authority.write(directory.path(), "stays", |_| {});
    Authority::new().write(directory.path(), "good", |_| {});
    touch(&files.cert);
    let outsider = end(with(stays)).await;
    eventually("both use the new ones", async || {
        here.transport.forget(there.incarnation);
        here.peer(&there).call(call(&[ECHO])).await == done(vec![ECHO])
            && handshake(&there, Some(&files)).await.is_ok()
    })
    .await;
    let why = refused(&outsider.peer(&there)).await;
    assert!(matches!(why, NotAttempted::Unavailable { .. }), "{why}");
}

/// Makes sure that a file is newer than it was, however coarse its clock is.
fn touch(path: &Path) {
    let file = std::fs::File::options().append(true).open(path).expect("it is there");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).expect("it is ours");
}

/// Shakes hands as somebody who believes everybody, and reads until the other side says something.
async fn handshake(there: &End, shows: Option<&TlsFiles>) -> Result<(), String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::AsyncReadExt;

    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("it is supported")
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(super::tls_trust::Anybody));
    let mut config = match shows {
        Some(files) => {
            let cert = CertificateDer::from_pem_file(&files.cert).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("they fit")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(there.transport.address()).await.expect("it accepts");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
    // In TLS 1.3 the refusal of a client's certificate comes after the client is done; else HTTP/2 settings come.
    let mut first = [0; 1];
    tls.read_exact(&mut first).await.map(|_| ()).map_err(|error| error.to_string())
}
