//! TLS between nodes: both sides show a certificate of the cluster's authority that says that it is a node's.
//!
//! A certificate is a node's if one of its alternative names is a URI that begins with `orchestrix://node/`; what comes
//! after that is for people. Host names are not looked at: nodes find each other by addresses out of the database, which
//! change with every start in a container. A client's certificate (`orchestrix://client/...`) of the same authority is
//! refused here, and so is one without such a name.
//!
//! Files are looked at again when a connection begins, at most once a second, and read anew when one of them has
//! changed. What does not fit together then is reported, and the last good ones stay in use. Connections that are there
//! stay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::cluster::TlsFiles;

/// How a node's certificate begins to say that it is one.
pub const NODE_ROLE: &str = "orchestrix://node/";

/// How often the files are looked at, at most.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The protocol that both sides must speak inside of TLS.
const ALPN: &[u8] = b"h2";

/// A file for TLS that is missing or is not what it should be. Nothing was started, or the last good files stay in use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds no certificate or key. Handling: correct the setting or the file.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate, key and authority do not fit together. Handling: make them anew.
    #[error("the certificate {} cannot be used: {reason}", cert.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a connection needs on either side.
#[derive(Clone, Debug)]
pub(super) struct Configs {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

/// The files of a node as they were read last.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    configs: Configs,
    looked_at: Instant,
    changed_at: [Option<SystemTime>; 3],
}

impl Tls {
    /// Reads the files.
    pub(super) fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let changed_at = changed_at(&files);
        let configs = read(&files)?;
        let read = Mutex::new(Read { configs, looked_at: Instant::now(), changed_at });
        Ok(Self { files, read })
    }

    /// Returns what the files say now.
    pub(super) fn configs(&self) -> Configs {
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if last.looked_at.elapsed() >= LOOK_PAUSE {
            last.looked_at = Instant::now();
            let changed_at = changed_at(&self.files);
            if changed_at != last.changed_at {
                last.changed_at = changed_at;
                self.read_again(&mut last);
            }
        }
        last.configs.clone()
    }

    fn read_again(&self, last: &mut Read) {
        match read(&self.files) {
            Ok(configs) => {
                last.configs = configs;
                tracing::info!(cert = %self.files.cert.display(), "the certificates of this node were read again");
            }
            Err(error) => {
                tracing::error!(%error, "the certificates of this node have changed and cannot be used; the last ones stay");
            }
        }
    }
}

fn changed_at(files: &TlsFiles) -> [Option<SystemTime>; 3] {
    // A file that is missing is reported when it is read.
    [&files.cert, &files.key, &files.ca].map(|path| path.metadata().and_then(|file| file.modified()).ok())
}

fn read(files: &TlsFiles) -> Result<Configs, TlsError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::File { path: files.key.clone(), reason: error.to_string() })?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots
            .add(authority)
            .map_err(|error| TlsError::File { path: files.ca.clone(), reason: error.to_string() })?;
    }
    configs(chain, key, roots).map_err(|reason| TlsError::Mismatch { cert: files.cert.clone(), reason })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() { Err(failed("it holds no certificate".to_owned())) } else { Ok(certificates) }
}

fn configs(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<Configs, String> {
    check_role(&chain[0]).map_err(|error| error.to_string())?;
    let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| words(&error))?
        .with_client_cert_verifier(Arc::new(NodesOnly::of(&roots, &provider)?))
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| words(&error))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| words(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NodesOnly::of(&roots, &provider)?))
        .with_client_auth_cert(chain, key)
        .map_err(|error| words(&error))?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
}

/// Believes certificates of the cluster's authorities that say that they are a node's, on either side.
#[derive(Debug)]
struct NodesOnly {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    as_server: Arc<WebPkiServerVerifier>,
    as_client: Arc<dyn ClientCertVerifier>,
}

impl NodesOnly {
    fn of(roots: &Arc<RootCertStore>, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let as_server = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| error.to_string())?;
        let as_client = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .build()
            .map_err(|error| error.to_string())?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { roots: Arc::clone(roots), algorithms, as_server, as_client })
    }
}

impl ServerCertVerifier for NodesOnly {
    /// Checks everything but the host's name.
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        check_role(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.as_server.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.as_server.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.as_server.supported_verify_schemes()
    }
}

impl ClientCertVerifier for NodesOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.as_client.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.as_client.verify_client_cert(certificate, intermediates, now)?;
        check_role(certificate)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.as_client.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.as_client.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.as_client.supported_verify_schemes()
    }
}

/// Checks that a certificate says that it is a node's.
fn check_role(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let names: Vec<&str> = parsed.valid_uri_names().collect();
    if names.iter().any(|name| name.starts_with(NODE_ROLE)) {
        return Ok(());
    }
    Err(Error::General(format!(
        "the certificate is not a node's: none of its names {names:?} begins with {NODE_ROLE}"
    )))
}
