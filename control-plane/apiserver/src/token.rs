//! Service-account tokens: JSON Web Tokens (RFC 7519) signed with ES256, with the claims of
//! bound tokens (KEP-1205).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::pki::PkiError;

/// The issuer of tokens and the default audience.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Longest token that is looked at, bytes; a bound token has below 2 KiB.
const MAX_LEN: usize = 16 * 1024;

/// A name with the uid that the object had when the token was issued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The object's name.
    pub name: String,
    /// The object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claim `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// Namespace of the service account and of what the token is bound to.
    pub namespace: String,
    /// The node of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    /// The pod that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    /// The secret that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
    /// The service account.
    pub serviceaccount: Bound,
}

/// All claims of a token; times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    pub aud: Vec<String>,
    /// Not valid from this moment on.
    pub exp: i64,
    /// Issued at.
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// Identifier of this token.
    pub jti: String,
    /// What Kubernetes adds.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// Not valid before.
    pub nbf: i64,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// Why a token is refused. The client only sees `Unauthorized`; this is for the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three base64url parts holding JSON.
    #[error("the token is malformed")]
    Malformed,
    /// Another key or algorithm.
    #[error("the token is not signed by this cluster's key")]
    Signature,
    /// Outside its time.
    #[error("the token has expired or is not valid yet")]
    Expired,
    /// Another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// No audience in common.
    #[error("the token is not for this audience")]
    Audience,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Signs and checks tokens.
pub struct Tokens {
    key: EcdsaKeyPair,
    random: SystemRandom,
    kid: String,
}

impl Tokens {
    /// With a PKCS#8 PEM key on P-256.
    pub fn new(key_pem: &str) -> Result<Self, PkiError> {
        let refuse = |reason: String| PkiError::TokenKey { reason };
        let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| refuse(error.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            der.secret_pkcs8_der(),
            &random,
        )
        .map_err(|error| refuse(error.to_string()))?;
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Self { key, random, kid })
    }

    /// The compact form of a token with these claims; `None` when the random source fails.
    pub fn sign(&self, claims: &Claims) -> Option<String> {
        let header = Header {
            alg: "ES256".to_owned(),
            kid: self.kid.clone(),
        };
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let header = part(serde_json::to_string(&header).ok()?);
        let claims = part(serde_json::to_string(claims).ok()?);
        let message = format!("{header}.{claims}");
        let signature = self.key.sign(&self.random, message.as_bytes()).ok()?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Checks signature, issuer, time and audience. What the token is bound to is the
    /// caller's to look up.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<Claims, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if token.len() > MAX_LEN {
            return Err(TokenError::Malformed);
        }
        let part = |text: &str| {
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| TokenError::Malformed)
        };
        let header: Header =
            serde_json::from_slice(&part(header)?).map_err(|_| TokenError::Malformed)?;
        if header.alg != "ES256" {
            return Err(TokenError::Signature);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key())
            .verify(message.as_bytes(), &part(signature)?)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims =
            serde_json::from_slice(&part(claims)?).map_err(|_| TokenError::Malformed)?;
        if claims.iss != ISSUER {
            return Err(TokenError::Issuer);
        }
        if now >= claims.exp || now < claims.nbf {
            return Err(TokenError::Expired);
        }
        if !claims
            .aud
            .iter()
            .any(|audience| audiences.contains(audience))
        {
            return Err(TokenError::Audience);
        }
        Ok(claims)
    }

    /// The key set document (RFC 7517) for `/openid/v1/jwks`.
    pub fn key_set(&self) -> serde_json::Value {
        // Uncompressed point: 0x04, x, y.
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.kid, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let key = rcgen::KeyPair::generate().unwrap();
        Tokens::new(&key.serialize_pem()).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            aud: vec!["a".into()],
            exp: 200,
            iat: 100,
            iss: ISSUER.into(),
            jti: "j".into(),
            kubernetes: KubernetesClaims::default(),
            nbf: 100,
            sub: "system:serviceaccount:n:s".into(),
        }
    }

    #[test]
    fn a_token_is_good_only_in_its_time_for_its_audience_with_its_key() {
        let tokens = tokens();
        let token = tokens.sign(&claims()).unwrap();
        let aud = |name: &str| vec![name.to_owned()];
        assert_eq!(tokens.verify(&token, &aud("a"), 150), Ok(claims()));
        let refusals = [
            (tokens.verify(&token, &aud("b"), 150), TokenError::Audience),
            (tokens.verify(&token, &aud("a"), 99), TokenError::Expired),
            (tokens.verify(&token, &aud("a"), 200), TokenError::Expired),
            (
                self::tokens().verify(&token, &aud("a"), 150),
                TokenError::Signature,
            ),
            (tokens.verify("x.y", &aud("a"), 150), TokenError::Malformed),
        ];
        for (result, expected) in refusals {
            assert_eq!(result, Err(expected));
        }
    }
}
