//! One layer, from its download to a directory whose content is proven.

use std::io::{self, BufReader};
use std::path::Path;

use super::ahead::read_ahead;
use super::apply::{self, Applied, ApplyError};
use super::archive::Archive;
use super::decompress::Uncompressed;
use super::tree::Tree;
use crate::config::Limits;
use crate::digest::Digest;
use crate::download::Follower;

/// Bytes read from the download at once.
const READ_BUFFER: usize = 256 << 10;

/// Compressed bytes from which a second thread is worth its start.
const AHEAD_FROM: u64 = 256 << 10;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The layer's directory cannot be opened, or its download read.
    #[error("cannot {step}: {cause}")]
    Io {
        /// What was done.
        step: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The blob is not what the manifest says.
    #[error("content does not match digest {0}")]
    Digest(Digest),
    /// The archive is not what the image configuration says.
    #[error("uncompressed content does not match diff id {0}")]
    DiffId(Digest),
    /// An entry is refused or cannot be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// What a layer's blob must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub digest: Digest,
    pub size: u64,
    pub diff_id: Digest,
}

/// Unpacks what `follower` reads into the empty directory `dir`. Unless it answers `Ok`, nothing in
/// `dir` may be used.
pub(crate) fn unpack(
    mut follower: Follower,
    expected: &Expected,
    dir: &Path,
    limits: &Limits,
) -> Result<Applied, UnpackError> {
    let failed = |step| move |cause| UnpackError::Io { step, cause };
    let tree = Tree::open(dir).map_err(failed("open the layer's directory"))?;
    let reader = BufReader::with_capacity(READ_BUFFER, &mut follower);
    let mut uncompressed = Uncompressed::new(reader, expected.size, &expected.diff_id, limits)
        .map_err(failed("read the layer"))?;
    let applied = if expected.size < AHEAD_FROM {
        apply::apply(&mut Archive::new(&mut uncompressed), &tree, limits.entries)
    } else {
        read_ahead(&mut uncompressed, |ahead| {
            apply::apply(&mut Archive::new(ahead), &tree, limits.entries)
        })
    };
    let (diff_id, _) = uncompressed.finish();
    // Data that cannot be decoded is most often not the data asked for; say so then.
    let undecodable = matches!(applied, Err(ApplyError::Archive(_)));
    if undecodable || applied.is_ok() {
        let matches = follower.finish(&expected.digest);
        if matches
            .map_err(failed("read the layer"))
            .is_ok_and(|matches| !matches)
        {
            return Err(UnpackError::Digest(expected.digest.clone()));
        }
    }
    let applied = applied?;
    if diff_id != expected.diff_id {
        return Err(UnpackError::DiffId(expected.diff_id.clone()));
    }
    Ok(applied)
}
