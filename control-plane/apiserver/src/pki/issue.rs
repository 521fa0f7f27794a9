//! Keys and certificates: ECDSA P-256 throughout.

use std::net::IpAddr;

use chrono::{Datelike, Duration, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{Identity, PkiError};

/// Days that the authority's certificate is valid (kubeadm: ten years).
const CA_DAYS: i64 = 3650;
/// Days that leaf certificates are valid (kubeadm: one year).
const LEAF_DAYS: i64 = 365;

/// A certificate with its private key, both PEM.
#[derive(Clone, Debug)]
pub struct KeyAndCert {
    /// The certificate.
    pub cert_pem: String,
    /// The PKCS#8 key.
    pub key_pem: String,
}

/// The signing authority.
pub(super) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf certificate says.
pub(super) struct Leaf {
    common_name: String,
    organization: Option<&'static str>,
    names: Vec<SanName>,
    usage: ExtendedKeyUsagePurpose,
}

enum SanName {
    Dns(String),
    Ip(IpAddr),
}

impl Leaf {
    pub(super) fn client(identity: &Identity) -> Self {
        Self {
            common_name: identity.common_name(),
            organization: identity.organization(),
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        }
    }

    pub(super) fn serving(common_name: &str, names: &[String], ips: &[IpAddr]) -> Self {
        let dns = names.iter().cloned().map(SanName::Dns);
        Self {
            common_name: common_name.to_owned(),
            organization: None,
            names: dns.chain(ips.iter().copied().map(SanName::Ip)).collect(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }
}

fn failed(action: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { action, source }
}

/// A new key: PKCS#8 PEM and its public half (SPKI PEM).
pub(super) fn generate_key() -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(failed("generate a key"))?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn valid_for(params: &mut CertificateParams, days: i64) {
    // A day back, so that a slightly wrong clock elsewhere does not refuse it.
    let (from, to) = (
        Utc::now() - Duration::days(1),
        Utc::now() + Duration::days(days),
    );
    let date = |at: chrono::DateTime<Utc>| {
        rcgen::date_time_ymd(
            at.year(),
            u8::try_from(at.month()).unwrap_or(1),
            u8::try_from(at.day()).unwrap_or(1),
        )
    };
    params.not_before = date(from);
    params.not_after = date(to);
}

impl Authority {
    /// A new self-signed authority.
    pub(super) fn create(common_name: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate the authority's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        valid_for(&mut params, CA_DAYS);
        let certificate = params
            .self_signed(&key)
            .map_err(failed("sign the authority's certificate"))?;
        Ok(Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority from its files.
    pub(super) fn load(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(failed("parse the authority's key"))?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key)
            .map_err(failed("parse the authority's certificate"))?;
        Ok(Self {
            pem: cert_pem.to_owned(),
            issuer,
        })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a leaf with a new key.
    pub(super) fn issue(&self, leaf: &Leaf) -> Result<KeyAndCert, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = leaf.organization {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.common_name.as_str());
        for name in &leaf.names {
            params.subject_alt_names.push(match name {
                SanName::Dns(name) => SanType::DnsName(
                    name.as_str()
                        .try_into()
                        .map_err(failed("use a DNS name in a certificate"))?,
                ),
                SanName::Ip(ip) => SanType::IpAddress(*ip),
            });
        }
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, LEAF_DAYS);
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed("sign a certificate"))?;
        Ok(KeyAndCert {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}
