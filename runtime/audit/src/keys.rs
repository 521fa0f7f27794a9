//! The keys of a node: one signs the head of its log, one hides the digests of environments.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::entry::Hash;

/// Name of the public key beside the secret ones: PEM, `openssl pkey -pubin` reads it.
pub const PUBLIC_KEY_NAME: &str = "node.pub";
const SECRET_KEY_NAME: &str = "node.key";
const ENVIRONMENT_KEY_NAME: &str = "environment.key";

/// A key file is a few lines long.
const LONGEST_KEY: u64 = 4096;

/// Everything of an Ed25519 private key in PKCS #8 (RFC 8410 §7) but its 32 bytes.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// Everything of an Ed25519 public key as SubjectPublicKeyInfo (RFC 8410 §4) but its 32 bytes.
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file operation failed.
    #[error("cannot {step} `{path}`")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("`{0}` is not an Ed25519 key in PEM")]
    Content(PathBuf),
    /// The environment key is damaged.
    #[error("`{0}` is not a key of 64 hexadecimal digits")]
    EnvironmentKey(PathBuf),
    /// The kernel gives no random numbers.
    #[error("cannot get random numbers for a key")]
    Random,
}

/// A key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read or is no Ed25519 key.
    pub fn read(path: &Path) -> Result<PublicKey, KeyError> {
        let text = read(path)?;
        let bytes = text.and_then(|text| from_pem(&text, "PUBLIC KEY", &SPKI));
        bytes
            .map(PublicKey)
            .ok_or_else(|| KeyError::Content(path.to_owned()))
    }

    /// The PEM text of the key.
    pub fn to_pem(&self) -> String {
        to_pem("PUBLIC KEY", &SPKI, &self.0)
    }

    /// What names the key: the SHA-256 of its SubjectPublicKeyInfo, as
    /// `openssl pkey -pubin -in node.pub -outform DER | sha256sum` prints it.
    pub fn fingerprint(&self) -> Hash {
        Hash::of(&[SPKI.as_slice(), &self.0].concat())
    }

    /// Whether `signature` is this key's of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }
}

/// The secret keys of a node.
pub struct NodeKeys {
    signing: Ed25519KeyPair,
    environment: ring::hmac::Key,
    public: PublicKey,
}

impl NodeKeys {
    /// Opens the keys in the folder `dir`, each made when it is not there. A crash while they
    /// are made leaves no half of one.
    ///
    /// # Errors
    /// The folder cannot be written, or a file holds something else.
    pub fn open(dir: &Path) -> Result<NodeKeys, KeyError> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        made.map_err(io("make", dir))?;
        let path = dir.join(SECRET_KEY_NAME);
        let text = read_or_make(&path, || Ok(to_pem("PRIVATE KEY", &PKCS8, &random()?)))?;
        let seed = from_pem(&text, "PRIVATE KEY", &PKCS8);
        let seed = seed.ok_or_else(|| KeyError::Content(path.clone()))?;
        let signing = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| KeyError::Content(path.clone()))?;
        let mut public = PublicKey([0; 32]);
        public.0.copy_from_slice(signing.public_key().as_ref());
        let path = dir.join(ENVIRONMENT_KEY_NAME);
        let text = read_or_make(&path, || Ok(hex::encode(random()?) + "\n"))?;
        let mut environment = [0; 32];
        hex::decode_to_slice(text.trim(), &mut environment)
            .map_err(|_| KeyError::EnvironmentKey(path))?;
        let path = dir.join(PUBLIC_KEY_NAME);
        if read(&path)?.is_none_or(|text| text != public.to_pem()) {
            write(&path, &public.to_pem(), 0o644)?;
        }
        Ok(NodeKeys {
            signing,
            environment: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &environment),
            public,
        })
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of `message`, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).as_ref().to_vec()
    }

    /// HMAC-SHA-256 of `bytes` with the environment key: equal environments of this node can
    /// be told, and their values cannot be guessed from the log.
    pub fn hide(&self, bytes: &[u8]) -> String {
        hex::encode(ring::hmac::sign(&self.environment, bytes))
    }
}

fn io(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { step, path, source }
}

fn random() -> Result<[u8; 32], KeyError> {
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<String, KeyError>,
) -> Result<String, KeyError> {
    if let Some(text) = read(path)? {
        return Ok(text);
    }
    let text = make()?;
    write(path, &text, 0o600)?;
    Ok(text)
}

/// The text of a file; None when it is not there.
fn read(path: &Path) -> Result<Option<String>, KeyError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    let mut text = String::new();
    let read = file.take(LONGEST_KEY).read_to_string(&mut text);
    read.map_err(io("read", path))?;
    Ok(Some(text))
}

/// Whole or not at all, and on the disk: what is signed must not outlive its key.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    let next = path.with_extension("new");
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io("remove", &next)(error));
        }
        _ => {}
    }
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&next)
        .map_err(io("create", &next))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io("write", &next))?;
    std::fs::rename(&next, path).map_err(io("replace", path))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder_handle = std::fs::File::open(folder).map_err(io("open", folder))?;
    folder_handle.sync_all().map_err(io("sync", folder))
}

fn to_pem(label: &str, prefix: &[u8], key: &[u8; 32]) -> String {
    let text = BASE64.encode([prefix, key].concat());
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn from_pem(text: &str, label: &str, prefix: &[u8]) -> Option<[u8; 32]> {
    let inner = text
        .trim()
        .strip_prefix(&format!("-----BEGIN {label}-----"))?
        .strip_suffix(&format!("-----END {label}-----"))?;
    let bytes = BASE64.decode(inner.replace(['\n', '\r'], "")).ok()?;
    bytes.strip_prefix(prefix)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_secret() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("audit");
        let keys = NodeKeys::open(&dir).unwrap();
        let again = NodeKeys::open(&dir).unwrap();
        let signature = keys.sign(b"text");
        assert!(again.public().verifies(b"text", &signature));
        assert!(!again.public().verifies(b"test", &signature));
        assert_eq!(keys.hide(b"A=b"), again.hide(b"A=b"));
        assert_ne!(keys.hide(b"A=b"), keys.hide(b"A=c"));
        let read = PublicKey::read(&dir.join(PUBLIC_KEY_NAME)).unwrap();
        assert_eq!(&read, keys.public());
        let mode = |name: &str| {
            let metadata = std::fs::metadata(dir.join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(
            (mode(SECRET_KEY_NAME), mode(ENVIRONMENT_KEY_NAME)),
            (0o600, 0o600)
        );
        assert_eq!((mode("."), mode(PUBLIC_KEY_NAME)), (0o700, 0o644));
    }

    #[test]
    fn a_key_half_made_is_made_again_and_a_damaged_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.new"), "half").unwrap();
        NodeKeys::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(PUBLIC_KEY_NAME)).unwrap();
        NodeKeys::open(dir.path()).unwrap();
        assert!(dir.path().join(PUBLIC_KEY_NAME).is_file());
        std::fs::write(dir.path().join(SECRET_KEY_NAME), "-----BEGIN").unwrap();
        assert!(matches!(
            NodeKeys::open(dir.path()),
            Err(KeyError::Content(_))
        ));
    }

    #[test]
    fn openssl_s_own_key_is_read() {
        // RFC 8410 §10.3 and §10.1.
        let secret = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SECRET_KEY_NAME), secret).unwrap();
        let keys = NodeKeys::open(dir.path()).unwrap();
        assert_eq!(keys.public().to_pem(), public);
    }
}
