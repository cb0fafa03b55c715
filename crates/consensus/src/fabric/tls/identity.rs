//! Who a certificate says its holder is, and the TLS configurations that check it.
//!
//! A peer's certificate has exactly one URI among its subject alternative names that begins with
//! `cabinet:peer:`; what follows is the peer id, percent-encoded. A DNS name would not do: a peer
//! id may hold characters that no host name has.
//!
//! Invariants
//! - TLS 1.3 only, with ring, both ends with certificates of the authority's roots;
//! - who dials a peer hangs up in the handshake when another answers;
//! - no session is resumed, so every connection verifies a certificate that is valid now.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible,
    RootCertStore, ServerConfig, SignatureScheme,
};

use crate::fabric::Principal;
use crate::ids::PeerId;

/// How a peer's URI begins.
const URI_PREFIX: &str = "cabinet:peer:";
/// Most certificates in a chain or among the roots.
const CERTIFICATES_MAX: usize = 64;

/// A certificate that does not say who its holder is, or says somebody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate does not parse.
    #[error("the certificate does not parse: give an X.509 certificate in DER")]
    Unreadable,
    /// The certificate has no URI of a peer.
    #[error("the certificate names no peer: issue it with a URI like `cabinet:peer:ann`")]
    Unnamed,
    /// The certificate has more than one URI of a peer.
    #[error("the certificate names several peers: issue one for each")]
    Several,
    /// What follows `cabinet:peer:` is not how we write a peer id.
    #[error("{0:?} is no peer's URI: take the one that `peer_uri` gives")]
    Misspelt(String),
    /// The certificate is somebody else's.
    #[error("the certificate is that of {found}, not of {expected}")]
    Mismatch {
        /// Who it should be.
        expected: PeerId,
        /// Who it is.
        found: PeerId,
    },
}

/// Certificates or keys that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The text is not PEM, or holds nothing of the kind.
    #[error("no usable PEM for {what}: {source}")]
    Pem {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// Nothing was given.
    #[error("{what} has no certificate: give at least one")]
    Empty {
        /// What should have had one.
        what: &'static str,
    },
    /// More certificates than one has.
    #[error("{what} has at most {CERTIFICATES_MAX} certificates, this one has {len}")]
    TooMany {
        /// What has them.
        what: &'static str,
        /// How many were given.
        len: usize,
    },
}

/// What a peer proves itself with, and what it asks of others.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("credentials")
    }
}

impl Credentials {
    /// Our certificate with those between it and a root, its private key, and the roots of the
    /// authority that signs every peer's.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] when there is no certificate or too many of them.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CredentialsError> {
        for (what, list) in [("the chain", &chain), ("the list of roots", &roots)] {
            if list.is_empty() {
                return Err(CredentialsError::Empty { what });
            }
            if list.len() > CERTIFICATES_MAX {
                return Err(CredentialsError::TooMany {
                    what,
                    len: list.len(),
                });
            }
        }
        Ok(Self { chain, key, roots })
    }

    /// The same from PEM.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] when one of them is no PEM or holds nothing of its kind.
    pub fn from_pem(chain: &[u8], key: &[u8], roots: &[u8]) -> Result<Self, CredentialsError> {
        let certificates = |what, pem| {
            CertificateDer::pem_slice_iter(pem)
                .take(CERTIFICATES_MAX + 1)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| CredentialsError::Pem { what, source })
        };
        let chain = certificates("the chain", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| CredentialsError::Pem {
            what: "the private key",
            source,
        })?;
        let roots = certificates("the roots", roots)?;
        Self::new(chain, key, roots)
    }

    /// Who our own certificate says we are.
    pub(super) fn peer(&self) -> Result<PeerId, IdentityError> {
        peer_of(self.chain.first().ok_or(IdentityError::Unreadable)?)
    }
}

/// The URI that `peer`'s certificate must have among its subject alternative names.
///
/// ```
/// use cabinet_consensus::fabric::tls::peer_uri;
/// use cabinet_consensus::ids::PeerId;
///
/// assert_eq!(peer_uri(&PeerId::new("Ann B.")?), "cabinet:peer:Ann%20B.");
/// # Ok::<(), cabinet_consensus::ids::NameError>(())
/// ```
#[must_use]
pub fn peer_uri(peer: &PeerId) -> String {
    use fmt::Write;

    let mut uri = URI_PREFIX.to_owned();
    for byte in peer.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

/// The peer whose URI this is. Each peer has one spelling: any other is refused.
fn peer_of_uri(uri: &str) -> Option<PeerId> {
    let mut rest = uri.strip_prefix(URI_PREFIX)?.as_bytes();
    let mut name = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        name.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    let peer = PeerId::new(std::str::from_utf8(&name).ok()?).ok()?;
    (peer_uri(&peer) == uri).then_some(peer)
}

/// The peer whose certificate this is. It does not say that the certificate is valid.
///
/// # Errors
///
/// [`IdentityError`] when the certificate names no peer, or more than one.
pub fn peer_of(certificate: &CertificateDer<'_>) -> Result<PeerId, IdentityError> {
    let certificate =
        webpki::EndEntityCert::try_from(certificate).map_err(|_| IdentityError::Unreadable)?;
    let mut uris = certificate
        .valid_uri_names()
        .filter(|uri| uri.starts_with(URI_PREFIX));
    let uri = uris.next().ok_or(IdentityError::Unnamed)?;
    if uris.next().is_some() {
        return Err(IdentityError::Several);
    }
    peer_of_uri(uri).ok_or_else(|| IdentityError::Misspelt(uri.to_owned()))
}

/// How a certificate that was verified is known to others.
pub(super) fn principal(certificate: &CertificateDer<'_>) -> Principal {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.as_ref());
    Principal::Certificate { sha256 }
}

/// Makes the TLS configurations of one peer.
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    credentials: Credentials,
}

impl Trust {
    pub(super) fn new(credentials: Credentials) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for root in &credentials.roots {
            roots.add(root.clone())?;
        }
        Ok(Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            roots: Arc::new(roots),
            credentials,
        })
    }

    /// For connections that come in: the other end must have a certificate of our authority.
    pub(super) fn server(&self) -> Result<ServerConfig, rustls::Error> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                self.credentials.chain.clone(),
                self.credentials.key.clone_key(),
            )?;
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For a connection to `peer`: nobody else may answer.
    pub(super) fn client(&self, peer: &PeerId) -> Result<ClientConfig, rustls::Error> {
        let verifier = PeerVerifier {
            provider: self.provider.clone(),
            roots: self.roots.clone(),
            expected: peer.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(
                self.credentials.chain.clone(),
                self.credentials.key.clone_key(),
            )?;
        config.resumption = Resumption::disabled();
        // The peer is named in its URI; a server name would say nothing.
        config.enable_sni = false;
        Ok(config)
    }
}

/// Accepts the certificate of one peer, signed by our authority and valid now.
#[derive(Debug)]
struct PeerVerifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    expected: PeerId,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let expected = self.expected.clone();
        let wrong = match peer_of(end_entity) {
            Ok(found) if found == expected => return Ok(ServerCertVerified::assertion()),
            Ok(found) => IdentityError::Mismatch { expected, found },
            Err(error) => error,
        };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What an I/O error of a TLS stream says about the peer.
pub(super) enum Blame {
    /// Somebody else answered.
    Stranger,
    /// A certificate was refused, theirs by us or ours by them.
    Certificate,
    /// Nothing: the network, or no TLS.
    Nobody,
}

pub(super) fn blame(error: &std::io::Error) -> Blame {
    use rustls::AlertDescription as Alert;

    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) => {
            if other.is::<IdentityError>() {
                Blame::Stranger
            } else {
                Blame::Certificate
            }
        }
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Blame::Certificate
        }
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
            | Alert::DecryptError,
        )) => Blame::Certificate,
        _ => Blame::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["cabinet.invalid".into()]).unwrap();
        for uri in uris {
            let uri = SanType::URI((*uri).try_into().unwrap());
            params.subject_alt_names.push(uri);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_one_peer_in_one_spelling() {
        let ann = PeerId::new("ann").unwrap();
        let named = certificate(&["https://example.org/", "cabinet:peer:ann"]);
        assert_eq!(peer_of(&named), Ok(ann));
        let unnamed = certificate(&["https://example.org/"]);
        assert_eq!(peer_of(&unnamed), Err(IdentityError::Unnamed));
        let both = certificate(&["cabinet:peer:ann", "cabinet:peer:bob"]);
        assert_eq!(peer_of(&both), Err(IdentityError::Several));
        for uri in [
            "cabinet:peer:",
            "cabinet:peer:%61nn",
            "cabinet:peer:a%2fb",
            "cabinet:peer:a%",
            "cabinet:peer:a%+1",
            "cabinet:peer:%FF",
            "cabinet:peer:a b",
            "cabinet:peer:%07",
        ] {
            let misspelt = Err(IdentityError::Misspelt(uri.into()));
            assert_eq!(peer_of(&certificate(&[uri])), misspelt);
        }
        let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert_eq!(peer_of(&garbage), Err(IdentityError::Unreadable));
    }

    #[test]
    fn credentials_take_their_most_certificates_and_not_one_more() {
        let one = certificate(&["cabinet:peer:ann"]);
        let key = || PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
        let make = |chain, roots| {
            Credentials::new(vec![one.clone(); chain], key(), vec![one.clone(); roots])
        };
        assert!(make(CERTIFICATES_MAX, CERTIFICATES_MAX).is_ok());
        for (chain, roots) in [(CERTIFICATES_MAX + 1, 1), (1, CERTIFICATES_MAX + 1)] {
            assert!(matches!(
                make(chain, roots),
                Err(CredentialsError::TooMany { len, .. }) if len == CERTIFICATES_MAX + 1
            ));
        }
        for (chain, roots) in [(0, 1), (1, 0)] {
            assert!(matches!(
                make(chain, roots),
                Err(CredentialsError::Empty { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn every_peer_is_found_again_by_its_uri(name in "[^\\p{Cc}]{1,16}") {
            let peer = PeerId::new(name).unwrap();
            let uri = peer_uri(&peer);
            prop_assert!(uri.is_ascii());
            prop_assert_eq!(peer_of_uri(&uri), Some(peer));
        }

        #[test]
        fn arbitrary_uris_and_certificates_never_panic(
            uri in "cabinet:peer:\\PC*",
            der in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = peer_of_uri(&uri);
            prop_assert!(peer_of(&CertificateDer::from(der)).is_err());
        }
    }
}
